import numpy as np
import pytest
import torch

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.bins import EDGES
from mlflow_yolo.statistics.histogram import (
    HistogramSums,
    count_codes,
    exponent_codes,
    fold,
    histogram,
    to_linear,
    weight_histograms,
)


def bin_of(value: float) -> tuple[int, int]:
    """Return (sign, bin) of the only value of a histogram."""
    counts, _ = histogram(torch.tensor([value]))
    ((sign, index),) = np.argwhere(counts)
    return int(sign), int(index)


def test_edges_are_the_powers_of_two_from_minus_40_to_24() -> None:
    assert (EDGES[0], EDGES[40], EDGES[64]) == (2.0**-40, 1.0, 2.0**24)


def test_counts_equal_numpy_histogram_and_frexp() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=30_000) * 2.0 ** rng.integers(-30, 20, 30_000)).astype(np.float32)
    counts, zeros = histogram(torch.from_numpy(values).reshape(100, 300))
    assert np.array_equal(counts[0], np.histogram(values[values > 0], EDGES)[0])
    assert np.array_equal(counts[1], np.histogram(-values[values < 0], EDGES)[0])
    exponents = np.frexp(np.abs(values))[1] - 1  # frexp's mantissa is in [0.5, 1)
    assert np.array_equal(counts.sum(0), np.bincount(exponents + 40, minlength=64))
    assert zeros == 0


def test_powers_of_two_open_their_bin() -> None:
    assert bin_of(1.0) == (0, 40)
    assert bin_of(float(np.nextafter(np.float32(1), np.float32(0)))) == (0, 39)
    assert bin_of(-2.0) == (1, 41)


def test_magnitudes_beyond_the_edges_are_counted_in_the_outermost_bins() -> None:
    assert bin_of(1e30) == (0, 63)
    assert bin_of(-1e30) == (1, 63)
    assert bin_of(1e-30) == (0, 0)
    assert bin_of(-1e-40) == (1, 0)  # subnormal


def test_zeros_of_both_signs_are_counted_apart_and_non_finite_values_not_at_all() -> None:
    counts, zeros = histogram(torch.tensor([0.0, -0.0, 0.0, float("nan"), float("inf"), -float("inf"), 3.0]))
    assert (int(counts.sum()), zeros) == (1, 3)
    counts, zeros = histogram(torch.tensor([-0.0, -3.0]))
    assert (int(counts.sum()), zeros) == (1, 1)


def test_the_histogram_of_a_whole_is_the_sum_of_its_parts() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    parts = exponent_codes(values[:300]) + exponent_codes(values[300:])
    assert torch.equal(exponent_codes(values), parts)


def test_counting_without_waiting_for_the_largest_code_is_the_same() -> None:
    codes = torch.randint(0, 512, (10_000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    assert torch.equal(count_codes(codes, scatter=True), count_codes(codes, scatter=False))
    assert count_codes(codes, scatter=True).tolist() == np.bincount(codes.numpy(), minlength=512).tolist()


def test_sums_add_up_by_block_and_leave_out_what_does_not_count() -> None:
    sums = HistogramSums()
    one, two = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([-2.0])
    sums.add({4: one, 9: two})
    sums.add({4: one}, counts=torch.tensor(True))
    sums.add({4: one, 9: two}, counts=torch.tensor(False))
    sums.add({4: one, 9: two}, counts=False)
    found = sums.result(np.array([4, 6, 9]))
    assert found.counts[:, 0, 40].tolist() == [4, 0, 0]
    assert found.counts[:, 1, 41].tolist() == [0, 0, 1]
    assert int(found.counts.sum()) == 5
    assert found.zeros.tolist() == [2, 0, 0]


def test_weights_of_several_parameters_make_one_histogram_a_block() -> None:
    pairs = [(4, torch.tensor([[1.0, -2.0]])), (9, torch.tensor([0.0])), (4, torch.tensor([1.5]))]
    found = weight_histograms(pairs, np.array([2, 4, 9]))
    assert found.counts[:, 0, 40].tolist() == [0, 2, 0]
    assert found.counts[:, 1, 41].tolist() == [0, 1, 0]
    assert found.zeros.tolist() == [0, 0, 1]
    assert not weight_histograms([], np.array([2])).counts.any()


def test_nothing_gives_counts_of_zero() -> None:
    counts, zeros = histogram(torch.empty(0))
    assert (counts.shape, int(counts.sum()), zeros) == ((2, 64), 0, 0)


def test_half_precision_is_counted_by_value() -> None:
    assert np.array_equal(histogram(torch.tensor([0.3, -5.0]).half())[0], histogram(torch.tensor([0.3, -5.0]))[0])


def test_codes_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 7\)"):
        fold(np.zeros((3, 7)))


def test_linear_density_of_uniform_values_is_flat_and_integrates_to_one() -> None:
    values = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32))
    edges, density = to_linear(*histogram(values), limit=1.0, n_bins=20)
    assert (density * np.diff(edges)).sum() == pytest.approx(1.0, abs=1e-6)
    assert density == pytest.approx(np.full(20, 0.5), rel=0.03)


def test_linear_density_leaves_out_what_lies_beyond_the_limit() -> None:
    edges, density = to_linear(*histogram(torch.tensor([0.75, -0.75, 0.75, 6.0])), limit=1.0, n_bins=4)
    assert (density * np.diff(edges)).tolist() == pytest.approx([0.25, 0.0, 0.0, 0.5])


def test_linear_density_puts_zeros_in_the_middle() -> None:
    edges, density = to_linear(*histogram(torch.tensor([0.0, 0.0, 3.0, -3.0])), limit=5.0, n_bins=5)
    assert (density * np.diff(edges))[2] == pytest.approx(0.5)


def test_linear_density_of_an_empty_histogram_is_zero() -> None:
    assert not to_linear(np.zeros((2, 64), dtype=np.int64), limit=1.0)[1].any()


def test_linear_density_refuses_several_blocks() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 2, 64\)"):
        to_linear(np.zeros((3, 2, 64), dtype=np.int64), limit=1.0)
