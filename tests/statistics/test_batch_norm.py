import numpy as np
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.batch_norm import batch_norm_statistics, block_batch_norms, normal_forms, read_batch_norms
from mlflow_yolo.statistics.saturation import activation_of, pre_activations

MODULES = [nn.SiLU(), nn.GELU(), nn.Mish(), nn.Sigmoid(), nn.Tanh()]
MODULES += [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.Identity()]
MEAN = np.array([0.0, -1.278, -3.0, 2.0, 5.0])
STD = np.array([1.0, 0.05, 2.0, 0.7, 3.0])


class ConvBlock(nn.Module):
    def __init__(self, act: nn.Module, *, beta: float = 0.0, gamma: float = 1.0) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), act
        nn.init.constant_(self.bn.bias, beta)
        nn.init.constant_(self.bn.weight, gamma)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_closed_form_equals_monte_carlo(module: nn.Module) -> None:
    activation = activation_of(module)
    assert activation is not None
    forms = normal_forms(MEAN, STD, activation)
    normal = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.from_numpy(MEAN)[:, None] + torch.from_numpy(STD)[:, None] * normal
    z.requires_grad_(True)
    value = module(z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    off = (z <= activation.off_below) | (z >= activation.off_above)
    np.testing.assert_allclose(forms.off_fraction, off.double().mean(1).numpy(), atol=4e-3)
    np.testing.assert_allclose(forms.openness, slope.abs().mean(1).detach().numpy(), atol=4e-3)
    np.testing.assert_allclose(forms.spread, value.std(1).detach().numpy(), rtol=1e-2)


def test_relu_and_silu_by_hand() -> None:
    relu, silu = activation_of(nn.ReLU()), activation_of(nn.SiLU())
    assert relu is not None
    assert silu is not None
    forms = normal_forms(np.array([0.0, 1.0]), np.array([1.0, 1.0]), relu)
    assert forms.off_fraction == pytest.approx([0.5, 0.158655], abs=1e-6)
    assert forms.openness == pytest.approx([0.5, 0.841345], abs=1e-6)
    # Var max(z, 0) of a standard normal = 1/2 - 1/(2 pi); the kink costs the quadrature some percent
    assert forms.spread[0] == pytest.approx(np.sqrt(0.5 - 1 / (2 * np.pi)), rel=0.02)
    # f'(z) + f'(-z) = 1, so that E f' = 1/2 where f' >= 0 nearly everywhere
    assert normal_forms(np.zeros(1), np.full(1, 0.5), silu).openness[0] == pytest.approx(0.5, abs=1e-3)


def test_the_channel_stuck_at_silus_minimum_has_hardly_any_slope() -> None:
    silu = activation_of(nn.SiLU())
    assert silu is not None
    forms = normal_forms(np.array([-1.278]), np.array([0.05]), silu)
    assert forms.openness[0] == pytest.approx(0.0088, abs=1e-4)
    assert forms.spread[0] == pytest.approx(0.0004, abs=1e-4)
    assert forms.off_fraction[0] == 0.0


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_the_sign_of_gamma_does_not_matter_and_zero_is_a_constant_channel(module: nn.Module) -> None:
    activation = activation_of(module)
    assert activation is not None
    one, other = (normal_forms(MEAN, sign * STD, activation) for sign in (1, -1))
    np.testing.assert_array_equal(one.openness, other.openness)
    np.testing.assert_array_equal(one.off_fraction, other.off_fraction)
    mean = np.array([-7.0, 0.7])
    constant = normal_forms(mean, np.zeros(2), activation)
    _, slope = activation.evaluate(torch.from_numpy(mean))
    np.testing.assert_allclose(constant.openness, slope.abs().numpy())
    np.testing.assert_allclose(constant.spread, 0.0, atol=1e-12)
    np.testing.assert_array_equal(constant.off_fraction, [float(activation.off_below > -7), 0.0])


def test_blocks_average_their_channels_and_those_without_batch_norm_are_absent() -> None:
    fused = ConvBlock(nn.SiLU())
    del fused.bn
    mixed = nn.ModuleList([ConvBlock(nn.ReLU(), beta=0.0), ConvBlock(nn.ReLU(), beta=-20.0)])
    found = batch_norm_statistics(block_batch_norms([(0, mixed), (3, fused), (5, nn.Identity())]))
    assert list(found) == [0]
    assert found[0] == pytest.approx(
        {"off_fraction": 0.75, "openness": 0.25, "dead_fraction": 0.5, "near_dead_fraction": 0.0}
    )


@pytest.mark.parametrize(("beta", "status"), [(0.0, (0, 0)), (-1.7, (0, 1)), (-2.2, (0, 1)), (-2.4, (1, 0))])
def test_a_normal_argument_of_relu_is_near_dead_below_5_percent_and_dead_below_1(
    beta: float, status: tuple[int, int]
) -> None:
    norms = block_batch_norms([(0, ConvBlock(nn.ReLU(), beta=beta))])
    found = batch_norm_statistics(norms)[0]  # P(z > 0) = 0.5, 0.045, 0.014, 0.008
    assert (found["dead_fraction"], found["near_dead_fraction"]) == status


def test_a_batch_norm_without_weights_of_its_own_is_left_out() -> None:
    sequence = nn.Sequential(nn.BatchNorm2d(2, affine=False), nn.SiLU(), nn.BatchNorm2d(3), nn.SiLU())
    without, norm = read_batch_norms(list(pre_activations(sequence)))
    assert without is None
    assert norm is not None
    assert norm.forms().openness.shape == (3,)


def test_what_was_read_does_not_change_with_the_model() -> None:
    block = ConvBlock(nn.ReLU(), beta=0.0)
    norms = block_batch_norms([(0, block)])
    nn.init.constant_(block.bn.bias, -20.0)
    assert batch_norm_statistics(norms)[0]["off_fraction"] == 0.5


def test_no_blocks_give_nothing() -> None:
    assert batch_norm_statistics(block_batch_norms([])) == {}
