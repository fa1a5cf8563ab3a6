"""The interval of a proportion: how far a count of n may lie from the rate behind it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError

Z_95 = 1.96
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(
    count: npt.ArrayLike, n: npt.ArrayLike, z: float = Z_95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the lower and upper end of the Wilson score interval of count / n.

    Args:
        count: How often it happened, any shape.
        n: How often it could have, broadcast against `count`.
        z: Standard normal quantile, 1.96 for 95 %.

    Returns:
        (low, high), each of the broadcast shape, in [0, 1]; low is 0 for no count, high is 1 for all; NaN where n is 0.

    Raises:
        ArgumentError: A count is negative or above its n.

    Source: Wilson (1927), without continuity correction; as `scipy.stats.binomtest(...).proportion_ci("wilson")`.
    """
    counts, sizes = np.broadcast_arrays(np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64))
    _check(counts, sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate, slack = counts / sizes, z * z / sizes
        middle = rate + slack / 2
        reach = np.sqrt(slack * (rate * (1 - rate) + slack / 4))
        low, high = (middle - reach) / (1 + slack), (middle + reach) / (1 + slack)
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-18.
    known = sizes > 0
    low = np.where(known & (counts == 0), 0.0, np.where(known, low, np.nan))
    high = np.where(known & (counts == sizes), 1.0, np.where(known, high, np.nan))
    return low, high


def _check(counts: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> None:
    wrong = ~((counts >= 0) & (counts <= sizes))
    if wrong.any():
        raise ArgumentError(f"count={counts[wrong][0]:g} of n={sizes[wrong][0]:g} is no proportion: use 0 to n.")
