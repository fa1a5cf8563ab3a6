import numpy as np
import pytest
import torch

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.weights import update_ratio, update_sums, weight_statistics, weight_sums


def test_statistics_equal_numpy() -> None:
    weights = np.random.default_rng(0).normal(0.05, 0.2, 20_000).astype(np.float32)
    update = np.random.default_rng(1).normal(0, 1e-3, 20_000).astype(np.float32)
    result = weight_statistics(
        weight_sums(torch.from_numpy(weights)).double().numpy(),
        update_sums(torch.from_numpy(update)).double().numpy(),
        np.array(20_000.0),
    )
    exact, exact_update = weights.astype(np.float64), update.astype(np.float64)
    expected = {
        "mean": exact.mean(),
        "std": exact.std(),
        "l2": np.sqrt((exact**2).sum()),
        "update_ratio": np.sqrt((exact_update**2).sum() / (exact**2).sum()),
    }
    assert {name: float(v) for name, v in result.items()} == pytest.approx(expected, rel=1e-5)


def test_update_ratio_by_hand_and_without_scale() -> None:
    assert update_ratio(np.array([0.5, 50.0]), np.array([5.0, 500.0])).tolist() == [0.1, 0.1]


def test_update_ratio_of_zero_weights_is_infinite_or_undefined() -> None:
    ratio = update_ratio(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    assert np.isposinf(ratio[0])
    assert np.isnan(ratio[1])


def test_no_blocks_give_empty_statistics() -> None:
    result = weight_statistics(np.zeros((0, 0, 2)), np.zeros((0, 0, 1)), np.zeros((0, 0)))
    assert all(values.shape == (0, 0) for values in result.values())


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        update_ratio(np.ones(2), np.ones(3))
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        weight_statistics(np.ones((4, 3)), np.ones((4, 1)), np.ones(4))
