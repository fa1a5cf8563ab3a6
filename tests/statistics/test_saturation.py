import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from mlflow_yolo.statistics.saturation import Activation, activation_of, pre_activations, region_fractions


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


def known(module: nn.Module) -> Activation:
    activation = activation_of(module)
    assert activation is not None
    return activation


def slope_by_autograd(activation: nn.Module, z: float) -> float:
    x = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(x), x)
    return float(slope)


@pytest.mark.parametrize(
    ("module", "region", "limit", "documented", "between"),
    [
        (nn.SiLU(), "off_below", 0, -4.083, (-8, -3)),
        (nn.SiLU(), "linear_above", 1, 4.083, (3, 8)),
        (nn.GELU(), "off_below", 0, -2.349, (-6, -2)),
        (nn.GELU(), "linear_above", 1, 2.349, (2, 6)),
        (nn.GELU(approximate="tanh"), "off_below", 0, -2.355, (-6, -2)),
        (nn.GELU(approximate="tanh"), "linear_above", 1, 2.355, (2, 6)),
        (nn.Mish(), "off_below", 0, -4.112, (-8, -3)),
        (nn.Mish(), "linear_above", 1, 2.332, (2, 8)),
        (nn.Sigmoid(), "off_below", 0, -2.887, (-8, -1)),
        (nn.Sigmoid(), "off_above", 0, 2.887, (1, 8)),
        (nn.Tanh(), "off_below", 0, -2.178, (-8, -1)),
        (nn.Tanh(), "off_above", 0, 2.178, (1, 8)),
    ],
)
def test_a_region_begins_at_the_outer_root_where_the_slope_is_five_percent_from_its_limit(
    module: nn.Module, region: str, limit: float, documented: float, between: tuple[float, float]
) -> None:
    def excess(z: float) -> float:
        return abs(slope_by_autograd(module, z) - limit) - 0.05

    root = brentq(excess, *between)
    outwards = math.copysign(1, root)
    assert all(excess(root + outwards * d) < 0 for d in (0.1, 1.0, 10.0, 50.0))  # the outermost one
    assert getattr(known(module), region) == pytest.approx(root, abs=1e-6)
    assert root == pytest.approx(documented, abs=1e-3)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.ReLU6(), nn.Hardswish()])
def test_at_and_below_the_threshold_a_kinked_function_is_exactly_flat(module: nn.Module) -> None:
    threshold = known(module).off_below
    assert not module(torch.linspace(-20.0, threshold, 50)).any()
    assert module(torch.tensor(threshold + 0.01)) != 0


@pytest.mark.parametrize(
    "module",
    [
        *(nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.Mish(), nn.Sigmoid(), nn.Tanh()),
        *(nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.LeakyReLU(), nn.Identity()),
    ],
    ids=str,
)
def test_value_and_slope_are_those_of_the_module_and_of_autograd(module: nn.Module) -> None:
    z = torch.linspace(-9.03, 9.01, 401, dtype=torch.float64)
    value, slope = known(module).evaluate(z)
    torch.testing.assert_close(value, module(z), rtol=1e-9, atol=1e-12)
    expected = [slope_by_autograd(module, float(at)) for at in z]
    np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("module", [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.Identity()])
def test_the_pieces_are_the_slopes_magnitude(module: nn.Module) -> None:
    activation = known(module)
    for at in (-7.0, -2.9, -1.4, -0.1, 0.1, 2.9, 5.9, 7.0):
        own = [p.constant + p.rate * at for p in activation.pieces if p.low < at < p.high]
        assert sum(own) == pytest.approx(abs(slope_by_autograd(module, at)))


def shares(module: nn.Module, z: list[float]) -> tuple[float, float]:
    off, linear = region_fractions(torch.tensor([z]), known(module))
    return pytest.approx(float(off)), pytest.approx(float(linear))


def test_fractions_by_hand() -> None:
    z = [-5.0, -4.0, -2.5, -1.0, 0.0, 1.0, 2.5, 5.0, 7.0, 9.0]
    assert shares(nn.SiLU(), z) == (0.1, 0.3)
    assert shares(nn.GELU(), z) == (0.3, 0.4)
    assert shares(nn.ReLU(), z) == (0.5, 0.5)
    assert shares(nn.ReLU6(), z) == (0.7, 0.3)  # 7 and 9 are cut off
    assert shares(nn.LeakyReLU(), z) == (0.0, 0.5)
    assert shares(nn.Identity(), z) == (0.0, 1.0)
    assert shares(nn.Hardswish(), z) == (0.2, 0.3)
    assert shares(nn.Tanh(), z) == (0.7, 0.0)


def test_an_unknown_function_has_no_regions_and_a_subclass_is_unknown() -> None:
    class Own(nn.SiLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    assert activation_of(nn.Linear(1, 1)) is None
    assert activation_of(Own()) is None


def test_pre_activation_is_the_batch_norm_and_after_fusing_the_convolution() -> None:
    block = ConvBlock(nn.SiLU())
    (layer,) = pre_activations(nn.ModuleList([block]))
    assert (layer.module, layer.name, layer.activation.name) == (block.bn, "0", "SiLU")
    del block.bn
    assert [layer.module for layer in pre_activations(nn.ModuleList([block]))] == [block.conv]


def test_a_block_that_is_itself_the_layer_has_an_empty_name() -> None:
    assert [layer.name for layer in pre_activations(ConvBlock(nn.SiLU()))] == [""]


def test_a_batch_norm_before_an_activation_in_a_sequence_is_found() -> None:
    sequence = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2))
    (layer,) = pre_activations(sequence)
    assert (layer.module, layer.name, layer.activation.off_below) == (sequence[1], "1", 0.0)


def test_sums_of_branches_and_blocks_without_activation_are_left_out() -> None:
    assert list(pre_activations(SummedBranches())) == []
    assert list(pre_activations(ConvBlock(nn.Identity()))) == []
