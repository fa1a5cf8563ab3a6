import numpy as np
import pytest
from scipy.stats import binomtest

from mlflow_yolo.classification.wilson import wilson_interval
from mlflow_yolo.exceptions import ArgumentError


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (3, 10), (12, 80), (0, 40), (40, 40), (999, 1000)])
def test_the_interval_is_that_of_scipy(count: int, n: int) -> None:
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(count, n, z=1.959963984540054)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_half_of_four_by_hand() -> None:
    # z=2: centre (1/2 + 4/8) / (1 + 4/4) = 1/2, reach 2 * sqrt(1/16 + 4/64) / 2 = sqrt(1/8).
    low, high = wilson_interval(2, 4, z=2.0)
    assert (float(low), float(high)) == pytest.approx((0.5 - 0.125**0.5, 0.5 + 0.125**0.5))


def test_counts_and_sizes_are_broadcast() -> None:
    low, high = wilson_interval([[1], [2]], [4, 8, 16])
    assert low.shape == high.shape == (2, 3)
    np.testing.assert_allclose(low[1, 2], wilson_interval(2, 16)[0])


def test_the_ends_are_exact_and_nothing_gives_no_interval() -> None:
    low, high = wilson_interval([0, 7, 0], [7, 7, 0])
    assert (low[0], high[1]) == (0.0, 1.0)
    assert np.isnan([low[2], high[2]]).all()
    assert wilson_interval([], [])[0].shape == (0,)


@pytest.mark.parametrize(("count", "n"), [(5, 4), (-1, 4)])
def test_what_is_no_proportion_is_refused(count: int, n: int) -> None:
    with pytest.raises(ArgumentError, match=f"count={count} of n={n}"):
        wilson_interval([1, count], [4, n])
