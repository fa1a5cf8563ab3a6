import numpy as np
import pytest

from mlflow_yolo.statistics.gradient_noise import noise_statistics
from mlflow_yolo.statistics.vectors import Floats


def noise_of(gradients: Floats) -> dict[str, float]:
    """Return the statistics of the (T, N) gradients of a block."""
    sums = {
        "gradient_sum_l2": np.linalg.norm(gradients.sum(axis=0)),
        "gradient_square_mean": (gradients**2).sum(axis=1).mean(),
        "n_steps": len(gradients),
    }
    statistics = noise_statistics({name: np.array(float(value)) for name, value in sums.items()})
    return {name: float(value) for name, value in statistics.items()}


def test_noise_of_three_steps_by_hand() -> None:
    # mean (1, 1), squares 5, 1, 2 -> mean 8/3, noise 8/3 - 2
    found = noise_of(np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0]]))
    assert found == pytest.approx({"noise": 2 / 3, "gsnr": 2.0 / (2 / 9), "noise_scale": 1 / 3})


def test_noise_is_the_trace_of_the_covariance() -> None:
    gradients = np.random.default_rng(0).normal(0.3, 1.0, (50, 20))
    found = noise_of(gradients)
    assert found["noise"] == pytest.approx(np.trace(np.cov(gradients.T, bias=True)))
    assert found["gsnr"] == pytest.approx(50 / found["noise_scale"])


def test_pure_noise_has_a_ratio_near_one() -> None:
    assert noise_of(np.random.default_rng(1).normal(size=(40, 20_000)))["gsnr"] == pytest.approx(1.0, abs=0.1)


def test_scaling_all_gradients_leaves_the_ratios() -> None:
    gradients = np.random.default_rng(2).normal(0.1, 1.0, (10, 30))
    small, large = noise_of(gradients), noise_of(100 * gradients)
    assert (large["gsnr"], large["noise_scale"]) == pytest.approx((small["gsnr"], small["noise_scale"]))


def test_steps_that_cancel_have_no_signal() -> None:
    found = noise_of(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert (found["noise"], found["gsnr"], found["noise_scale"]) == (1.0, 0.0, np.inf)


def test_below_two_steps_nothing_is_defined() -> None:
    assert all(np.isnan(value) for value in noise_of(np.ones((1, 3))).values())
