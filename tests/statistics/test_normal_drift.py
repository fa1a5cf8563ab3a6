import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from mlflow_yolo.statistics.normal_drift import NormalDrift, normal_divergence


def drift_of(network: nn.Sequential, *batches: torch.Tensor) -> dict[int, float]:
    drift = NormalDrift(list(enumerate(network)))
    network.eval()
    with drift.watching(), torch.no_grad():
        for batch in batches:
            network(batch)
    return drift.blocks()


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    mean, variance = np.array([0.3, -2.0, 0.0]), np.array([0.5, 4.0, 1.0])
    kept_mean, kept_variance = np.array([0.0, 1.0, 0.0]), np.array([2.0, 3.0, 1.0])
    expected = kl_divergence(
        Normal(torch.tensor(mean), torch.tensor(variance).sqrt()),
        Normal(torch.tensor(kept_mean), torch.tensor(kept_variance).sqrt()),
    )

    found = normal_divergence(mean, variance, kept_mean, kept_variance)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)
    assert found[2] == 0.0


def test_a_constant_channel_is_infinitely_far() -> None:
    assert normal_divergence(np.zeros(1), np.zeros(1), np.zeros(1), np.ones(1)) == math.inf
    assert normal_divergence(np.zeros(1), np.ones(1), np.zeros(1), np.zeros(1)) == math.inf


def test_the_drift_of_a_batch_norm_is_the_mean_over_channels_of_all_that_passed() -> None:
    norm = nn.BatchNorm2d(2)
    norm.running_mean, norm.running_var = torch.tensor([1.0, -1.0]), torch.tensor([4.0, 0.25])
    first, second = torch.randn(3, 2, 5, 4, dtype=torch.float64), torch.randn(2, 2, 5, 4, dtype=torch.float64) + 1
    rows = torch.cat([first, second]).transpose(0, 1).flatten(1).numpy()
    kept = np.array([4.0, 0.25]) + norm.eps
    expected = normal_divergence(rows.mean(1), rows.var(1) + norm.eps, np.array([1.0, -1.0]), kept).mean()

    assert drift_of(nn.Sequential(norm), first.float(), second.float())[0] == pytest.approx(expected, rel=1e-5)


def test_data_like_those_that_were_kept_have_hardly_moved() -> None:
    torch.manual_seed(0)
    assert drift_of(nn.Sequential(nn.BatchNorm1d(3)), torch.randn(20_000, 3))[0] < 1e-3


def test_a_shift_is_seen_where_it_enters_and_not_behind_it() -> None:
    """Brighter images move the first batch norm; the second sees what was normalised anew."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Identity(), nn.Sequential(nn.BatchNorm2d(1)))
    images = torch.randn(16, 1, 16, 16)

    found = drift_of(network, images + 2.0)
    assert set(found) == {0, 2}
    assert found[0] == pytest.approx(2.0, rel=0.05)  # half the squared shift, in units of the kept spread
    assert found[2] < 0.01


def test_the_network_and_its_buffers_are_left_as_they_were() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drift_of(network, torch.randn(4, 1, 8, 8))

    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network[1]._forward_hooks
    assert not network[1].training


def test_a_channel_of_one_value_passes_and_a_constant_one_stays_finite() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2))
    assert math.isfinite(drift_of(network, torch.ones(1, 2, 1, 1))[0])
    assert math.isfinite(drift_of(network, torch.ones(4, 2, 3, 3))[0])


def test_without_kept_statistics_or_data_there_is_nothing() -> None:
    assert drift_of(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))) == {}
    assert drift_of(nn.Sequential(nn.BatchNorm2d(1))) == {}
