import numpy as np
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.activations import ActivationProbe, ActivationResult
from mlflow_yolo.statistics.function_use import function_uses


def result() -> tuple[ActivationResult, torch.Tensor]:
    """Return what a probe saw of two ReLU layers and one SiLU layer, and what it was shown."""
    norm = [nn.BatchNorm2d(2).eval() for _ in range(3)]
    model = nn.Sequential(nn.Sequential(norm[0], nn.ReLU()), nn.Sequential(norm[1], nn.SiLU(), norm[2], nn.ReLU()))
    x = torch.randn(16, 2, 12, 12, generator=torch.Generator().manual_seed(0)) * 3
    with ActivationProbe(list(enumerate(model))) as probe, torch.no_grad():
        model[0](x)
        model[1](x)
    return probe.result(), x


def test_every_distinct_function_has_its_graph_and_layers() -> None:
    relu, silu = function_uses(result()[0], {0: "00-Conv", 1: "01-C3k2"})
    assert (relu.name, relu.blocks) == ("ReLU", ("00-Conv", "01-C3k2"))
    assert (silu.name, silu.blocks) == ("SiLU", ("01-C3k2",))
    assert (relu.z[0], relu.z[-1]) == (-6.0, 6.0)
    np.testing.assert_array_equal(relu.value, np.maximum(relu.z, 0))
    np.testing.assert_allclose(silu.value, silu.z / (1 + np.exp(-silu.z)))
    assert relu.densities.shape == (2, 96)


def test_shares_are_those_of_all_values_also_beyond_the_drawn_range() -> None:
    found, x = result()
    _, silu = function_uses(found, {0: "a", 1: "b"})
    z = x.numpy()
    assert (np.abs(z) > 6).mean() > 0.03
    assert silu.off_fraction == pytest.approx((z <= -4.0826).mean(), abs=2e-3)
    assert silu.linear_fraction == pytest.approx((z > 4.0826).mean(), abs=2e-3)


def test_nothing_measured_gives_nothing() -> None:
    with ActivationProbe([]) as probe:
        pass
    assert function_uses(probe.result(), {}) == ()
