"""Which channels do nothing: dead and near-dead, by what the activation lets through and not by counting zeros.

A channel stuck at SiLU's minimum puts out -0.278 everywhere; no zero shows it, its slope and its spread do.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlflow_yolo.statistics.vectors import Floats

DEAD_SPREAD = 1e-3
"""Of the median spread of the layer's channels."""
DEAD_OPENNESS = 0.01
NEAR_DEAD_OPENNESS = 0.05
NEAR_DEAD_OFF = 0.95

ALIVE, NEAR_DEAD, DEAD = "alive", "near-dead", "dead"


def channel_status(openness: Floats, spread: Floats, off_fraction: Floats) -> npt.NDArray[np.object_]:
    """Return (C,) the status of every channel of one layer.

    Dead: the spread is under a thousandth of the layer's median, or the openness under 0.01. Near-dead: else, an
    openness under 0.05, or off at more than 95 % of the positions. A layer without any spread is dead as a whole.

    Args:
        openness: (C,) mean |f'(z)|.
        spread: (C,) standard deviation of f(z).
        off_fraction: (C,) share of positions that are off.
    """
    median = float(np.median(spread)) if len(spread) else 0.0
    dead = (spread <= DEAD_SPREAD * median) | (openness < DEAD_OPENNESS)
    near = (openness < NEAR_DEAD_OPENNESS) | (off_fraction > NEAR_DEAD_OFF)
    status: npt.NDArray[np.object_] = np.select([dead, near], [DEAD, NEAR_DEAD], ALIVE).astype(object)
    return status


def status_fractions(status: Sequence[str] | npt.NDArray[np.object_]) -> dict[str, float]:
    """Return the shares of dead and of near-dead channels; a channel is one or the other. Empty gives nothing."""
    if not len(status):
        return {}
    return {
        "dead_fraction": sum(found == DEAD for found in status) / len(status),
        "near_dead_fraction": sum(found == NEAR_DEAD for found in status) / len(status),
    }
