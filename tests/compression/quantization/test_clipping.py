"""Tests of the least-squares clipping range, against brute force and closed forms."""

import itertools

import numpy as np
import pytest

from mlflow_yolo.compression.quantization.clipping import Histogram, best_range, draw, squared_error
from mlflow_yolo.exceptions import ArgumentError


def test_the_error_is_that_of_rounding_and_clipping() -> None:
    # Two levels, 0 and 1: .25 goes to 0, .75 to 1 and 3 is clipped to 1.
    values, counts = np.array([0.25, 0.75, 3.0]), np.array([2.0, 1.0, 1.0])
    error = squared_error(values, counts, np.array([0.0]), np.array([1.0]), levels=2)
    assert error == pytest.approx([(2 * 0.25**2 + 0.25**2 + 2**2) / 4])


def test_the_zero_point_is_a_whole_number() -> None:
    # Four levels over (-1, 2) have a step of 1 and are -1, 0, 1, 2, so these are exact.
    values = np.array([-1.0, 0.0, 1.0, 2.0])
    assert squared_error(values, np.ones(4), np.array([-1.0]), np.array([2.0]), levels=4) == pytest.approx([0])

    # Two levels over (-.4, 1) have a step of 1.4 and are 0 and 1.4, to which 1 is rounded.
    assert squared_error(np.ones(1), np.ones(1), np.array([-0.4]), np.array([1.0]), levels=2) == pytest.approx([0.16])


def test_evenly_spread_values_keep_their_whole_range() -> None:
    histogram = Histogram(0, 1)
    histogram.add(np.linspace(0, 1, 4096, dtype=np.float32))
    assert best_range(histogram) == (0, 1)


def test_a_single_outlier_is_clipped() -> None:
    # 3.28 million values in (0, 1), one at 100. A range of w costs each of the many (w/255)²/12 and the one (100 - w)²,
    # so the least is at w / (6 · 255²) = 2 (100 - w) / 3.28e6, w = 19.2; the ends are tried in steps of 1.
    histogram = Histogram(0, 100, n_bins=1 << 15)
    histogram.counts[:328] = 10_000  # up to 1
    histogram.counts[-1] = 1
    low, high = best_range(histogram, levels=256)
    assert low == 0
    assert 17 <= high <= 21


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_range_is_as_good_as_the_best_of_all_pairs(symmetric: bool) -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 1, 4000), random.normal(0, 8, 20)])
    histogram = Histogram(values.min(), values.max())
    histogram.add(values)
    low, high = best_range(histogram, symmetric=symmetric, levels=16)

    def error(pair: tuple[float, float]) -> float:
        ends = [np.array([end]) for end in pair]
        return float(squared_error(histogram.centres, histogram.counts, *ends, levels=16)[0])

    steps = np.arange(1, 101) / 100
    if symmetric:
        width = max(-values.min(), values.max())
        assert low == -high
        pairs = [(-step * width, step * width) for step in steps]
    else:
        pairs = [(a * values.min(), b * values.max()) for a, b in itertools.product(steps, steps)]
    best = min(map(error, pairs))
    # Ends are searched in turn, which may stop a little above the best pair.
    assert error((low, high)) <= best * (1 + 1e-9 if symmetric else 1.05)
    assert error((low, high)) < error((values.min(), values.max())) * 0.6


def test_the_range_contains_zero_and_scales_with_the_values() -> None:
    histogram, larger = Histogram(3, 7), Histogram(30, 70)
    values = np.random.default_rng(0).uniform(3, 7, 1000)
    histogram.add(values)
    larger.add(values * 10)
    assert best_range(histogram)[0] == 0
    assert np.multiply(best_range(histogram), 10) == pytest.approx(best_range(larger))


def test_a_constant_tensor_has_a_range() -> None:
    histogram = Histogram(0, 0)
    histogram.add(np.zeros(10))
    assert best_range(histogram) == (0, 0)
    negative = Histogram(-2, -2)
    negative.add(np.full(10, -2.0))
    assert best_range(negative) == (-2, 0)


def test_nothing_counted_keeps_the_whole_range() -> None:
    histogram = Histogram(-1, 2)
    histogram.add(np.zeros(0))
    assert best_range(histogram) == (-1, 2)


def test_a_large_tensor_counts_as_much_as_its_size() -> None:
    histogram = Histogram(0, 1)
    histogram.add(np.random.default_rng(0).random((300, 300)))
    histogram.add(np.zeros(5))
    assert histogram.counts.sum() == pytest.approx(90_005)


def test_values_that_are_few_are_all_drawn() -> None:
    values = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(draw(values, np.random.default_rng(0)), np.arange(6))
    assert draw(values, np.random.default_rng(0), n=4).shape == (4,)


def test_ends_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ArgumentError, match="nan"):
        Histogram(float("nan"), 1)
