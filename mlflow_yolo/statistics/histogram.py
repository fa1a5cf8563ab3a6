"""Histograms over powers of two, read from the bits of float32: no minimum or maximum has to be known first.

A bin holds the values whose magnitude lies in [2^k, 2^(k+1)), for k from -40 to 23 and each sign; smaller and larger
magnitudes are counted in the outermost bins, exact zeros apart, NaN and infinity not at all. Histograms of different
epochs and runs therefore always share their bins and can be added.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.bins import EDGES, LOWEST, N_BINS
from mlflow_yolo.statistics.vectors import Floats, Ints

_BIAS = 127
_CODES = 512
"""Sign bit and 8 exponent bits of float32."""
_NEGATIVE_ZERO = -(2**31)


@dataclass(frozen=True, eq=False)
class Histograms:
    """Exponent histograms of some blocks.

    Attributes:
        blocks: (B,) block indices, ascending.
        counts: (B, 2, 64) number of positive ([:, 0]) and negative ([:, 1]) values by `EDGES`; all 0 for a block that
            has nothing to count (frozen, no gradient).
        zeros: (B,) number of exact zeros.
    """

    blocks: Ints
    counts: Ints
    zeros: Ints


def exponent_codes(vector: Tensor) -> Tensor:
    """Return (514,) int64 counts by sign and exponent bits, then of +0 and of -0, on the vector's device.

    Args:
        vector: Any shape; converted to float32. Empty gives zeros.
    """
    bits = vector.detach().float().reshape(-1).view(torch.int32)
    codes = torch.bitwise_right_shift(bits, 23).bitwise_and_(_CODES - 1)
    counts = count_codes(codes, scatter=codes.is_cuda)
    return torch.cat([counts, _zeros(bits, counts)])


def count_codes(codes: Tensor, *, scatter: bool) -> Tensor:
    """Return (512,) how often each code from 0 to 511 occurs in a vector of integers.

    `bincount` is the faster one on a CPU; on a GPU it waits for the largest code, which `scatter` does not.
    """
    if not scatter:
        return torch.bincount(codes, minlength=_CODES)
    ones = torch.ones((), dtype=torch.int64, device=codes.device).expand(len(codes))
    return torch.zeros(_CODES, dtype=torch.int64, device=codes.device).scatter_add_(0, codes.long(), ones)


def _zeros(bits: Tensor, counts: Tensor) -> Tensor:
    """Return (2,) numbers of +0 and -0; on a CPU they are counted only where the smallest exponent occurs at all."""
    if not bits.is_cuda and not counts[0] + counts[_CODES // 2]:
        return torch.zeros_like(counts[:2])
    return torch.stack([(bits == 0).sum(), (bits == _NEGATIVE_ZERO).sum()])


class HistogramSums:
    """Adds up the exponent counts of blocks, on their device."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._codes: dict[int, Tensor] = {}

    def add(self, vectors: Mapping[int, Tensor], *, counts: bool | Tensor = True) -> None:
        """Count the elements of vectors by block; nothing if `counts` is False, which may still be on the device."""
        for block, vector in vectors.items() if counts is not False else ():
            codes = exponent_codes(vector) if counts is True else exponent_codes(vector) * counts
            known = self._codes.get(block)
            self._codes[block] = codes if known is None else known.to(codes.device).add_(codes)

    def result(self, blocks: Ints) -> Histograms:
        """Return the histograms of these blocks, with one copy from the device; 0 for what was not counted."""
        host = np.zeros((len(blocks), _CODES + 2), dtype=np.int64)
        if self._codes:
            host[np.searchsorted(blocks, list(self._codes))] = torch.stack(list(self._codes.values())).cpu().numpy()
        return Histograms(blocks, *fold(host))


def weight_histograms(weights: Iterable[tuple[int, Tensor]], blocks: Ints) -> Histograms:
    """Return the histograms of weights, each given with its block; 0 for those of `blocks` (B,) that have none."""
    by_block: dict[int, list[Tensor]] = defaultdict(list)
    for block, weight in weights:
        by_block[block].append(weight.detach().reshape(-1))
    sums = HistogramSums()
    sums.add({block: torch.cat(parts) for block, parts in by_block.items()})
    return sums.result(blocks)


def fold(codes: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Return counts (..., 2, 64) and zeros (...) from the (..., 514) of `exponent_codes`.

    Raises:
        ShapeError: The last axis is not 514.
    """
    array = np.asarray(codes, dtype=np.int64)
    if array.shape[-1:] != (_CODES + 2,):
        raise ShapeError(f"codes has shape {array.shape}, expected (..., {_CODES + 2}): use exponent_codes.")
    signed_zeros = array[..., _CODES:]
    by_sign = array[..., :_CODES].reshape(*array.shape[:-1], 2, 256).copy()
    by_sign[..., 0] -= signed_zeros  # exponent bits 0 hold zeros and subnormals
    first = LOWEST + _BIAS  # exponent bits of the lowest bin
    last = first + N_BINS - 1
    counts = by_sign[..., first : last + 1]
    counts[..., 0] += by_sign[..., :first].sum(axis=-1)
    counts[..., -1] += by_sign[..., last + 1 : 255].sum(axis=-1)  # exponent bits 255 are NaN and infinity
    return counts, signed_zeros.sum(axis=-1)


def histogram(vector: Tensor) -> tuple[Ints, int]:
    """Return the (2, 64) counts by sign and `EDGES`, and the number of exact zeros, of a tensor of any shape."""
    counts, zeros = fold(exponent_codes(vector).cpu().numpy())
    return counts, int(zeros)


def to_linear(counts: Ints, zeros: int = 0, *, limit: float, n_bins: int = 50) -> tuple[Floats, Floats]:
    """Return edges (n_bins + 1,) and density (n_bins,) on a linear axis, for display.

    Values are taken as spread evenly within their power of two, and zeros within ±2^-40.

    Args:
        counts: (2, 64) positive and negative counts by `EDGES`.
        zeros: Number of exact zeros.
        limit: The axis goes from -limit to limit; > 0.
        n_bins: Number of bins.

    Returns:
        The density integrates to the share of values within the limits: 1 where none lies outside. All zeros for an
        empty histogram.

    Raises:
        ShapeError: `counts` is not (2, 64).
    """
    if counts.shape != (2, N_BINS):
        raise ShapeError(f"counts has shape {counts.shape}, expected (2, {N_BINS}): pass one block's histogram.")
    edges = np.linspace(-limit, limit, n_bins + 1)
    total = int(counts.sum()) + zeros
    if total == 0:
        return edges, np.zeros(n_bins)
    knots = np.concatenate([-EDGES[::-1], EDGES])
    masses = np.concatenate([counts[1, ::-1], [zeros], counts[0]])
    cumulative = np.concatenate([[0.0], np.cumsum(masses) / total])
    return edges, np.diff(np.interp(edges, knots, cumulative)) / np.diff(edges)
