import numpy as np
import pytest
import torch

from mlflow_yolo.statistics.density import EDGES, N_BINS, N_CODES, Density, bin_codes, count_codes


def test_bins_are_half_open_and_what_lies_outside_is_counted_apart() -> None:
    z = torch.tensor([-torch.inf, -6.001, -6.0, -5.876, -5.875, 0.0, 5.999, 6.0, 1e30, torch.inf, torch.nan])
    assert bin_codes(z).tolist() == [0, 0, 1, 1, 2, 49, 96, 97, 97, 97, 98]
    assert EDGES[48] == 0.0


def test_counts_equal_numpys_histogram_per_row() -> None:
    z = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 3
    counts = count_codes((bin_codes(z) + torch.tensor([[0], [N_CODES]])).flatten(), 2).numpy()
    for row, values in zip(counts, z.numpy(), strict=True):
        inside, _ = np.histogram(values, EDGES)
        np.testing.assert_array_equal(row[1 : N_BINS + 1], inside)
        assert (row[0], row[N_BINS + 1]) == ((values < -6).sum(), (values >= 6).sum())


def test_a_density_integrates_to_the_share_within_the_limits() -> None:
    counts = np.zeros((2, N_BINS), dtype=np.int64)
    counts[0, 48] = 6
    density = Density(("a", "b"), ("SiLU", "SiLU"), counts, np.array([1, 0]), np.array([1, 0])).per_unit()
    assert density[0, 48] == pytest.approx(6 / 8 / 0.125)
    assert (density * 0.125).sum(1) == pytest.approx([0.75, 0.0])


def test_shares_below_a_limit_are_even_within_a_bin() -> None:
    counts = np.zeros((1, N_BINS), dtype=np.int64)
    counts[0, 48] = 4  # from 0 to 0.125
    density = Density(("a",), ("SiLU",), counts, np.array([3]), np.array([1]))
    shares = {limit: float(density.share_below(limit)[0]) for limit in (-np.inf, -6.0, -1.0, 0.0625, 1.0, np.inf)}
    assert shares == pytest.approx({-np.inf: 0, -6.0: 3 / 8, -1.0: 3 / 8, 0.0625: 5 / 8, 1.0: 7 / 8, np.inf: 1})
