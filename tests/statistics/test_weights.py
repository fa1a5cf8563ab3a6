import math

import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.vectors import Floats
from mlflow_yolo.statistics.weights import angular_update, cosine, update_ratio, weight_statistics


def sums_of(before: Floats, after: Floats, gradient: Floats) -> dict[str, Floats]:
    """Return what the reductions give, in double precision."""
    update = after - before
    values = {
        "weight_total": before.sum(),
        "weight_l2": np.linalg.norm(before),
        "weight_elements": float(before.size),
        "update_l2": np.linalg.norm(update),
        "update_dot_gradient": update @ gradient,
        "update_dot_after": update @ after,
        "gradient_l2": np.linalg.norm(gradient),
    }
    return {name: np.array(value) for name, value in values.items()}


def test_statistics_equal_numpy() -> None:
    rng = np.random.default_rng(0)
    before, update, gradient = rng.normal(0.05, 0.2, 2000), rng.normal(0, 1e-3, 2000), rng.normal(0, 1, 2000)
    after = before + update
    expected = {
        "mean": before.mean(),
        "std": before.std(),
        "l2": np.linalg.norm(before),
        "update_l2": np.linalg.norm(update),
        "update_ratio": np.linalg.norm(update) / np.linalg.norm(before),
        "update_cosine": -(update @ gradient) / np.linalg.norm(update) / np.linalg.norm(gradient),
        "angular_update": math.acos(before @ after / np.linalg.norm(before) / np.linalg.norm(after)),
    }
    found = weight_statistics(sums_of(before, after, gradient))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-6)


def test_the_cosine_of_gradient_descent_is_one_whatever_the_step_and_minus_one_for_ascent() -> None:
    weights, gradient = np.array([1.0, 2.0, 3.0]), np.array([0.3, -0.1, 7.0])
    for lr, expected in ((1e-6, 1.0), (10.0, 1.0), (-0.1, -1.0)):
        found = weight_statistics(sums_of(weights, weights - lr * gradient, 1e5 * gradient))
        assert found["update_cosine"] == pytest.approx(expected)


def test_without_an_update_its_direction_is_undefined_and_its_size_zero() -> None:
    weights = np.array([1.0, 2.0])
    found = weight_statistics(sums_of(weights, weights, np.array([1.0, 1.0])))
    assert np.isnan(found["update_cosine"])
    assert [float(found[name]) for name in ("update_l2", "update_ratio", "angular_update")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("before", "after", "angle"),
    [
        ((1.0, 0.0), (0.0, 3.0), math.pi / 2),
        ((1.0, 0.0), (-2.0, 0.0), math.pi),
        ((2.0, 0.0), (5.0, 0.0), 0.0),
        ((1.0, 0.0), (1.0, 1e-9), 1e-9),
    ],
)
def test_angles_by_hand_and_whatever_the_length(
    before: tuple[float, float], after: tuple[float, float], angle: float
) -> None:
    for length in (1.0, 1e3):
        sums = sums_of(length * np.array(before), length * np.array(after), np.ones(2))
        found = angular_update(sums["update_l2"], sums["update_dot_after"], sums["weight_l2"])
        assert found == pytest.approx(angle, rel=1e-6)


def test_the_angle_from_zero_weights_is_undefined() -> None:
    assert np.isnan(angular_update(np.array(1.0), np.array(1.0), np.array(0.0)))


def test_a_cosine_stays_within_its_range_and_is_undefined_for_a_zero_vector() -> None:
    assert cosine(np.array([1.0 + 1e-7, 0.0]), np.array([1.0, 1.0]), np.array([1.0, 2.0])).tolist() == [1.0, 0.0]
    assert np.isnan(cosine(np.array(0.0), np.array(0.0), np.array(1.0)))


def test_update_ratio_by_hand_and_without_scale() -> None:
    assert update_ratio(np.array([0.5, 50.0]), np.array([5.0, 500.0])).tolist() == [0.1, 0.1]


def test_update_ratio_of_zero_weights_is_infinite_or_undefined() -> None:
    ratio = update_ratio(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    assert np.isposinf(ratio[0])
    assert np.isnan(ratio[1])


def test_no_blocks_give_empty_statistics() -> None:
    empty = {name: np.zeros((0, 0)) for name in sums_of(np.ones(1), np.ones(1), np.ones(1))}
    assert all(values.shape == (0, 0) for values in weight_statistics(empty).values())


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        update_ratio(np.ones(2), np.ones(3))
