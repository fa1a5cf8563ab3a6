import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.seed_range import as_floats, over_seeds


def test_mean_and_range_leave_missing_values_out() -> None:
    seeds = over_seeds(np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]]))
    np.testing.assert_array_equal(seeds.mean, [2.0, 5.0, np.nan])
    np.testing.assert_array_equal(seeds.low, [1.0, 5.0, np.nan])
    np.testing.assert_array_equal(seeds.high, [3.0, 5.0, np.nan])
    assert seeds.n_seeds == 2


def test_the_order_of_seeds_does_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5))
    np.testing.assert_allclose(over_seeds(values).mean, over_seeds(values[::-1]).mean)


def test_no_seeds_give_no_values() -> None:
    seeds = over_seeds(np.empty((0, 3)))
    assert np.isnan([seeds.mean, seeds.low, seeds.high]).all()
    assert seeds.n_seeds == 0


def test_infinity_counts_as_missing_and_the_input_is_left_as_it_is() -> None:
    values = np.array([1.0, np.inf])
    np.testing.assert_array_equal(as_floats(values, ndim=1, what="values"), [1.0, np.nan])
    assert np.isinf(values[1])


def test_wrong_number_of_dimensions_names_the_shape() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        as_floats([1.0, 2.0], ndim=2, what="values")
