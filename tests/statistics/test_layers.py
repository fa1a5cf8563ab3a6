import numpy as np
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.layers import LayerPreActivations
from mlflow_yolo.statistics.saturation import pre_activations


def relu_and_silu() -> LayerPreActivations:
    """Return the table of two layers of block 0 (ReLU, SiLU) and one of block 2 (SiLU)."""
    first = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(3), nn.SiLU())
    second = nn.Sequential(nn.BatchNorm2d(2), nn.SiLU())
    layers = [(0, layer) for layer in pre_activations(first)] + [(2, layer) for layer in pre_activations(second)]
    return LayerPreActivations(layers, 3, n_elements=100_000)


def random_z(n_channels: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, n_channels, 6, 6, generator=torch.Generator().manual_seed(seed)) * 3


def test_channels_equal_autograd_and_numpy_however_the_passes_are_split() -> None:
    table, z = relu_and_silu(), random_z(3)
    table.see(1, z[:1])
    table.reduce()
    table.see(1, z[1:])
    found = table.channels()[1]
    x = z.double().requires_grad_(True)
    value = nn.functional.silu(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    np.testing.assert_allclose(found.openness, slope.abs().mean((0, 2, 3)).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.spread, value.detach().numpy().std(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.off_fraction, (z.numpy() <= -4.08256).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.linear_fraction, (z.numpy() > 4.08256).mean(axis=(0, 2, 3)), rtol=1e-6)
    assert found.n_elements == 4 * 36


def test_the_spread_of_a_nearly_constant_channel_survives_float32() -> None:
    table = relu_and_silu()
    z = (20.0 + 1e-3 * random_z(2)).float()
    table.see(0, z)
    table.reduce()
    table.see(0, z)
    expected = z.double().numpy().std(axis=(0, 2, 3))
    np.testing.assert_allclose(table.channels()[0].spread, expected, rtol=1e-3)  # 400 - 400 would be lost in 3e-5


def test_a_steps_row_sums_the_elements_of_each_block() -> None:
    table, relu, silu = relu_and_silu(), random_z(2), random_z(3, seed=1)
    table.see(0, relu)
    table.see(1, silu)
    row = table.end_step()
    assert row is not None
    off = (relu <= 0).sum() + (silu <= -4.08256).sum()
    linear = (relu > 0).sum() + (silu > 4.08256).sum()
    np.testing.assert_allclose(row.numpy(), [[off, 0, 0], [linear, 0, 0], [5 * 144, 0, 0]], rtol=1e-6)
    assert table.end_step() is None


def test_a_layer_that_appears_later_joins_the_table() -> None:
    table, z = relu_and_silu(), random_z(2)
    table.see(2, z)
    table.end_step()
    table.see(0, z)
    table.see(2, z)
    row = table.end_step()
    assert row is not None
    assert row[2].tolist() == [288.0, 0.0, 288.0]
    assert {number: found.n_elements for number, found in table.channels().items()} == {0: 144, 2: 288}


def test_a_layer_that_appears_later_leaves_the_spread_of_its_group_right() -> None:
    table, low, high = relu_and_silu(), random_z(2), random_z(2, seed=3) + 5.0
    table.see(2, low)
    table.reduce()
    table.see(1, random_z(3))  # the same function and size: reduced as one matrix with layer 2
    table.see(2, high)
    value = nn.functional.silu(torch.cat([low, high]).double()).numpy()
    np.testing.assert_allclose(table.channels()[2].spread, value.std(axis=(0, 2, 3)), rtol=1e-5)


def test_a_layer_that_runs_twice_in_a_pass_counts_twice() -> None:
    table, one, other = relu_and_silu(), random_z(2), random_z(2, seed=2)
    table.see(0, one)
    table.see(0, other)
    found = table.channels()[0]
    both = torch.cat([one, other])
    np.testing.assert_allclose(found.off_fraction, (both.numpy() <= 0).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.spread, both.clamp(min=0).double().numpy().std(axis=(0, 2, 3)), rtol=1e-5)


def test_nothing_seen_gives_nothing() -> None:
    table = relu_and_silu()
    assert table.end_step() is None
    assert table.channels() == {}
    assert table.densities(["a", "b", "c"]) == {}


@pytest.mark.parametrize("wanted", [True, False])
def test_the_distribution_is_counted_where_it_is_wanted(wanted: bool) -> None:
    layers = [(0, layer) for layer in pre_activations(nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))]
    table = LayerPreActivations(layers, 1, n_elements=100_000, with_densities=wanted)
    for _ in range(6):
        table.see(0, random_z(2))
        table.reduce()
    found = table.densities(["a"])
    assert len(found) == wanted
    for density in found.values():
        assert density.counts.sum() + density.below.sum() + density.above.sum() == 6 * 288
