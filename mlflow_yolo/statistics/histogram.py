"""Histograms over powers of two, read from the bits of float32: no minimum or maximum has to be known first.

A bin holds the values whose magnitude lies in [2^k, 2^(k+1)), for k from -40 to 23 and each sign; smaller and larger
magnitudes are counted in the outermost bins, exact zeros apart, NaN and infinity not at all. Histograms of different
epochs and runs therefore always share their bins and can be added.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.vectors import Floats, Ints

N_BINS = 64
LOWEST = -40
EDGES: Floats = np.exp2(np.arange(LOWEST, LOWEST + N_BINS + 1, dtype=np.float64))
"""(65,) edges of the bins of one sign, magnitudes."""

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
    counts = torch.bincount((bits >> 23) & (_CODES - 1), minlength=_CODES)
    return torch.cat([counts, torch.stack([(bits == 0).sum(), (bits == _NEGATIVE_ZERO).sum()])])


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
