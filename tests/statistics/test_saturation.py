import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from mlflow_yolo.statistics.saturation import off_threshold, pre_activations


class ConvBlock(nn.Module):
    """Laid out like Ultralytics' Conv: conv, bn, act."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), act


class SummedBranches(nn.Module):
    """Laid out like Ultralytics' RepConv: its bn is one of three branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.bn, self.act = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.SiLU()


@pytest.mark.parametrize(
    ("activation", "documented", "below", "above"),
    [(nn.SiLU(), -4.083, -8, -3), (nn.GELU(), -2.349, -6, -2), (nn.Mish(), -4.112, -8, -3)],
)
def test_threshold_is_the_outer_root_of_slope_five_percent(
    activation: nn.Module, documented: float, below: float, above: float
) -> None:
    def excess(z: float) -> float:
        x = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(activation(x), x)
        return abs(float(slope)) - 0.05

    root = brentq(excess, below, above)
    assert all(excess(root - d) < 0 for d in (0.1, 1.0, 10.0, 50.0))  # the outermost one
    assert off_threshold(activation) == pytest.approx(root, abs=1e-5)
    assert root == pytest.approx(documented, abs=1e-3)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardswish()])
def test_at_and_below_the_threshold_a_kinked_function_is_exactly_flat(activation: nn.Module) -> None:
    threshold = off_threshold(activation)
    assert threshold is not None
    assert not activation(torch.linspace(-20.0, threshold, 50)).any()
    assert activation(torch.tensor(threshold + 0.01)) != 0


@pytest.mark.parametrize("activation", [nn.LeakyReLU(), nn.Identity(), nn.Linear(1, 1)])
def test_what_is_never_off_has_no_threshold(activation: nn.Module) -> None:
    assert off_threshold(activation) is None


def test_pre_activation_is_the_batch_norm_and_after_fusing_the_convolution() -> None:
    block = ConvBlock(nn.SiLU())
    assert [module for module, _ in pre_activations(nn.ModuleList([block]))] == [block.bn]
    del block.bn
    assert [module for module, _ in pre_activations(nn.ModuleList([block]))] == [block.conv]


def test_a_batch_norm_before_an_activation_in_a_sequence_is_found() -> None:
    sequence = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
    assert list(pre_activations(sequence)) == [(sequence[1], 0.0)]


def test_sums_of_branches_and_blocks_without_activation_are_left_out() -> None:
    assert list(pre_activations(SummedBranches())) == []
    assert list(pre_activations(ConvBlock(nn.Identity()))) == []
