import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlflow_yolo.statistics.gradients import clip_coefficient, gradient_statistics, gradient_sums
from mlflow_yolo.statistics.stretch import Layout


def statistics_of(vector: Tensor) -> dict[str, float]:
    layout = Layout([(0, nn.Parameter(torch.zeros_like(vector)), torch.zeros_like(vector))])
    layout.read_gradients([vector], 1.0)
    total, l1, largest = gradient_sums(layout.stretches[0])
    sums = {
        "gradient_elements": np.array(float(vector.numel())),
        "gradient_l2": layout.stretches[0].gradient_l2.double().numpy(),
        "gradient_total": total.double().numpy(),
        "gradient_l1": l1.double().numpy(),
        "gradient_max": largest.double().numpy(),
    }
    return {name: float(value) for name, value in gradient_statistics(sums).items()}


def test_statistics_of_three_four_by_hand() -> None:
    assert statistics_of(torch.tensor([3.0, -4.0])) == pytest.approx(
        {"l1": 7.0, "l2": 5.0, "rms": 12.5**0.5, "mean": -0.5, "mean_abs": 3.5, "max_abs": 4.0, "variance": 12.25}
    )


def test_statistics_equal_torch_in_double_precision() -> None:
    vector = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * 1e-3 + 2e-4
    exact = vector.double()
    expected = {
        "l1": exact.abs().sum(),
        "l2": exact.square().sum().sqrt(),
        "rms": exact.square().mean().sqrt(),
        "mean": exact.mean(),
        "mean_abs": exact.abs().mean(),
        "max_abs": exact.abs().max(),
        "variance": exact.var(correction=0),
    }
    assert statistics_of(vector) == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


def test_order_of_elements_does_not_matter() -> None:
    vector = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert statistics_of(vector.flip(0)) == pytest.approx(statistics_of(vector), rel=1e-5)


def test_a_constant_gradient_has_no_variance_and_never_a_negative_one() -> None:
    for value in (0.1, 1 / 3, 1e-4):
        assert statistics_of(torch.full((999,), value))["variance"] == pytest.approx(0.0, abs=1e-6 * value**2)
        assert statistics_of(torch.full((999,), value))["variance"] >= 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_element_shows_in_the_maximum(bad: float) -> None:
    assert not np.isfinite(statistics_of(torch.tensor([1.0, bad, 2.0]))["max_abs"])


def test_no_blocks_give_empty_statistics() -> None:
    names = ("gradient_elements", "gradient_l2", "gradient_total", "gradient_l1", "gradient_max")
    statistics = gradient_statistics({name: np.zeros((0, 0)) for name in names})
    assert all(values.shape == (0, 0) for values in statistics.values())


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_clip_coefficient_is_what_torch_multiplies_with(size: float) -> None:
    parameter = nn.Parameter(torch.zeros(100))
    parameter.grad = torch.randn(100, generator=torch.Generator().manual_seed(2)) * size
    before = parameter.grad.clone()
    norm = nn.utils.clip_grad_norm_([parameter], max_norm=10.0)
    factor = float((parameter.grad / before).mean())
    assert clip_coefficient(np.array(float(norm))) == pytest.approx(factor, rel=1e-5)
