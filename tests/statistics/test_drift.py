import numpy as np
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.drift import DRIFT, drift_statistics
from mlflow_yolo.statistics.stretch import Layout


def drift_of(start: list[float], now: list[float]) -> dict[str, float]:
    parameter = nn.Parameter(torch.tensor(now))
    layout = Layout([(0, parameter, torch.tensor(start))])
    layout.read_weights()
    (stretch,) = layout.stretches
    sums = dict(zip(DRIFT.sums, (s.double().numpy() for s in DRIFT.reduce(stretch)), strict=True))
    sums["after_l2"] = stretch.weight_l2.double().numpy()
    return {name: float(value) for name, value in drift_statistics(sums).items()}


@torch.no_grad()
def test_drift_by_hand() -> None:
    assert drift_of([3.0, 4.0], [4.0, -3.0]) == pytest.approx({"drift": np.sqrt(2.0), "drift_cosine": 0.0}, abs=1e-7)
    assert drift_of([3.0, 4.0], [6.0, 8.0]) == pytest.approx({"drift": 1.0, "drift_cosine": 1.0})
    assert drift_of([3.0, 4.0], [-3.0, -4.0]) == pytest.approx({"drift": 2.0, "drift_cosine": -1.0})


@torch.no_grad()
def test_the_start_has_no_drift() -> None:
    assert drift_of([0.1, -0.7, 0.3], [0.1, -0.7, 0.3]) == pytest.approx({"drift": 0.0, "drift_cosine": 1.0})


@torch.no_grad()
def test_the_scale_of_all_weights_does_not_matter() -> None:
    small, large = drift_of([0.3, 0.4], [0.5, 0.1]), drift_of([300.0, 400.0], [500.0, 100.0])
    assert small == pytest.approx(large, rel=1e-6)


@torch.no_grad()
def test_drift_from_zero_is_undefined() -> None:
    assert all(np.isnan(value) for value in drift_of([0.0, 0.0], [1.0, 2.0]).values())
