"""The clipping range with the least quantization error, searched on a histogram of the values."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError

LEVELS = 256
"""Values that 8 bits have."""

N_BINS = 2048
"""Bins of a histogram: eight for every level at the full range."""

N_FRACTIONS = 100
"""Widths that are tried on each side, in steps of one hundredth of the full one."""

N_VALUES = 1 << 13
"""Values of one tensor and one input that enter a histogram: 1.6 million over 200 inputs."""

Floats = npt.NDArray[np.float64]


class Histogram:
    """Counts of a tensor's values between two ends that are known beforehand.

    Args:
        low: Smallest value.
        high: Largest value.
        n_bins: Bins of equal width.

    Attributes:
        low: Smallest value.
        high: Largest value.
        counts: (n_bins,) number of values in each bin.
        centres: (n_bins,) its middle.
    """

    def __init__(self, low: float, high: float, *, n_bins: int = N_BINS) -> None:
        if not low <= high:
            raise ArgumentError(f"a histogram from {low} to {high} has no width. Give finite ends, the smaller first.")
        self.low, self.high = float(low), float(high)
        self.counts = np.zeros(n_bins)
        self.centres = self.low + (np.arange(n_bins) + 0.5) * (self.high - self.low) / n_bins
        self._random = np.random.default_rng(0)

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Count the values of a tensor, any shape; of a large one a random choice, weighted up to its size."""
        chosen = draw(values, self._random)
        if not chosen.size:
            return
        n_bins, width = len(self.counts), self.high - self.low
        bins = (chosen - self.low) * (n_bins / width) if width > 0 else np.zeros(chosen.size)
        counts = np.bincount(np.clip(bins, 0, n_bins - 1).astype(np.intp), minlength=n_bins)
        self.counts += counts * (values.size / chosen.size)


def draw(values: npt.NDArray[Any], random: np.random.Generator, n: int = N_VALUES) -> npt.NDArray[Any]:
    """Return all values of a tensor, flat, or `n` of them drawn with replacement where it has more."""
    flat = values.reshape(-1)
    return flat if flat.size <= n else flat[random.integers(0, flat.size, n)]


def best_range(histogram: Histogram, *, symmetric: bool = False, levels: int = LEVELS) -> tuple[float, float]:
    """Return the (lowest, highest) value to represent, for the least mean squared error.

    Each end is searched with the other held, the upper one first and once more at the end; a symmetric range has one
    width to search. 0 is always within, since padding must be exact.

    Source: ours; the criterion is that of Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient
    Inference", 2019, section 3.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    fractions = np.arange(1, N_FRACTIONS + 1) / N_FRACTIONS
    if symmetric:
        widths = fractions * max(-low, high)
        return _least(histogram, -widths, widths, levels)
    for end in ("high", "low", "high"):
        if end == "high":
            ends = fractions * max(histogram.high, 0.0)
            low, high = _least(histogram, np.full_like(ends, low), ends, levels)
        else:
            ends = fractions * min(histogram.low, 0.0)
            low, high = _least(histogram, ends, np.full_like(ends, high), levels)
    return low, high


def squared_error(values: Floats, counts: Floats, low: Floats, high: Floats, *, levels: int = LEVELS) -> Floats:
    """Return the mean squared error of values that are rounded to `levels` steps between two ends.

    Args:
        values: (n,).
        counts: (n,) weight of each.
        low: (k,) lower ends, <= 0.
        high: (k,) upper ends, >= 0.
        levels: Steps, the ends included; one of them is 0, as a zero point is a whole number.

    Returns:
        (k,), 0 where nothing was counted.
    """
    scale = np.maximum((high - low) / (levels - 1), np.finfo(np.float64).tiny)[:, None]
    zero = np.round(-low[:, None] / scale)
    steps = np.clip(np.round(values / scale) + zero, 0, levels - 1) - zero
    weights = counts / max(float(counts.sum()), 1.0)
    return np.asarray(((steps * scale - values) ** 2) @ weights)


def _least(histogram: Histogram, low: Floats, high: Floats, levels: int) -> tuple[float, float]:
    """Return the pair of ends with the least error, the widest among equals."""
    errors = squared_error(histogram.centres, histogram.counts, low, high, levels=levels)
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))
    return float(low[best]), float(high[best])
