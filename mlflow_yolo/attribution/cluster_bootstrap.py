"""Intervals of statistics over cases that come in clusters: the objects of one image are not independent.

Whole images are drawn with replacement, each with all of its cases. A resample is a vector of image weights, so a
statistic that is a function of sums needs only the weighted sums; no case is ever copied.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.masks import Floats
from mlflow_yolo.exceptions import ArgumentError, ShapeError

LEAST_CLUSTERS = 10
"""Below this there is no interval. Of intervals called 95 %, those of a mean over 5 images hold the truth in 84 of 100
cases, over 10 in 90, over 40 in 94 (normal images of four cases each, 1000 draws of the data)."""

_DRAWS_AT_ONCE = 2_000_000
"""Bounds the memory: 16 MB an array, however many images there are."""


def cluster_interval(
    clusters: npt.NDArray[Any],
    values: Floats,
    statistic: Callable[[Floats], Floats],
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Floats:
    """Return the 95 % percentile intervals of statistics of the sums of values over cases.

    Args:
        clusters: (N,) the image of each case, of any type.
        values: (N, V) what is summed over the cases; a column of ones gives their number.
        statistic: Maps weighted sums (R, V), one row a resample, to (R, K) statistics; nan where there is none.
        n_resamples: Resamples; those in which a statistic is nan are left out of its interval.
        seed: Of the draws. An interval does not depend on what else was computed.

    Returns:
        (K, 2) lower and upper ends; nan for fewer than `LEAST_CLUSTERS` images, or where no resample has the statistic.

    Raises:
        ShapeError: `values` has not one row a case.
        ArgumentError: Less than one resample.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (clusters resampled whole).
    """
    if values.ndim != 2 or len(values) != len(clusters):
        raise ShapeError(f"values have shape {values.shape} for {len(clusters)} cases, expected one row a case.")
    if n_resamples < 1:
        raise ArgumentError(f"n_resamples={n_resamples} is too few: use 2000.")
    names, cluster = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, cluster, values)
    if len(names) < LEAST_CLUSTERS:
        n_statistics = statistic(sums.sum(axis=0, keepdims=True)).shape[1]
        return np.full((n_statistics, 2), np.nan)
    drawn = statistic(_resampled(sums, n_resamples, seed))
    return np.stack([_percentiles(column) for column in drawn.T])


def _resampled(sums: Floats, n_resamples: int, seed: int) -> Floats:
    """Return (R, V), the sums (I, V) over as many clusters as there are, drawn with replacement."""
    n = len(sums)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n)
    parts = []
    for first in range(0, n_resamples, at_once):
        size = min(at_once, n_resamples - first)
        # Counts of uniform draws are multinomial weights, several times as fast as numpy's multinomial.
        drawn = rng.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        parts.append(weights @ sums)
    return np.concatenate(parts)


def _percentiles(drawn: Floats) -> Floats:
    kept = drawn[~np.isnan(drawn)]
    return np.percentile(kept, [2.5, 97.5]) if len(kept) else np.full(2, np.nan)
