"""The empirical distribution of pre-activations, on the interval in which activation functions bend."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.statistics.vectors import Floats, Ints

N_BINS = 96
LIMIT = 6.0
EDGES: Floats = np.linspace(-LIMIT, LIMIT, N_BINS + 1)
"""(97,) edges of the bins, 0.125 apart."""

N_CODES = N_BINS + 3
"""Below all bins, the bins, above all bins, not a number."""


@dataclass(frozen=True, eq=False)
class Density:
    """How the pre-activations of one block's layers are distributed.

    Attributes:
        layers: (L,) names of the layers.
        activations: (L,) name of the activation that follows each.
        counts: (L, 96) number of sampled values by `EDGES`.
        below: (L,) number under -6.
        above: (L,) number at and over 6.
    """

    layers: tuple[str, ...]
    activations: tuple[str, ...]
    counts: Ints
    below: Ints
    above: Ints

    def per_unit(self) -> Floats:
        """Return (L, 96) densities, per unit of z; each row integrates to the share of values within ±6."""
        totals = np.maximum(self.counts.sum(1) + self.below + self.above, 1)
        return np.asarray(self.counts / totals[:, None] / np.diff(EDGES), dtype=np.float64)

    def share_below(self, limit: float) -> Floats:
        """Return (L,) the share of values below a limit from -6 to 6 or infinite, even within its bin; 0 of none."""
        totals = self.counts.sum(1) + self.below + self.above
        if not np.isfinite(limit):
            return np.where(totals > 0, float(limit > 0), 0.0)
        under = np.cumsum(np.column_stack([self.below, self.counts]), axis=1)
        found = np.array([np.interp(limit, EDGES, row) for row in under])
        return np.asarray(found / np.maximum(totals, 1), dtype=np.float64)


def bin_codes(z: Tensor) -> Tensor:
    """Return for every element the number of its bin, int64: 0 below, 1 to 96, 97 above, 98 for NaN."""
    scale = N_BINS / (2 * LIMIT)
    return ((z + LIMIT) * scale + 1).clamp(0, N_BINS + 1).nan_to_num(nan=N_BINS + 2).long()


def count_codes(codes: Tensor, n_rows: int) -> Tensor:
    """Return (n_rows, 99) int64 counts of `row * 99 + code`; no maximum is looked for, so no device is waited for."""
    counts = torch.zeros(n_rows * N_CODES, dtype=torch.int64, device=codes.device)
    return counts.scatter_add_(0, codes, torch.ones_like(codes)).view(n_rows, N_CODES)
