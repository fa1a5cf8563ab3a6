"""Whether two lists order the same things alike: Spearman's rank correlation with a permutation test."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, permutations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mlflow_yolo.exceptions import ShapeError

MOST_EXACT = 8
"""Things up to which every order is tried: 8! = 40320."""

_N_SHUFFLES = 20_000
_CHUNK = 20_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankCorrelation:
    """How alike two lists order the same things.

    Attributes:
        rho: Spearman's rho in [-1, 1]; None where there is none: fewer than three things, or a list of equals.
        p: Share of all orders that give at least this rho (one-sided); None where there is no rho.
        n: Number of things.
        exact: Whether every order was tried; else 20000 were drawn.
    """

    rho: float | None
    p: float | None
    n: int
    exact: bool = True


def rank_correlation(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> RankCorrelation:
    """Return Spearman's rho of two lists, ties at their mean rank, and how often chance gives as much.

    Args:
        first: One value a thing, finite.
        second: The same things in the same order.
        seed: Of the orders that are drawn where there are too many to try all.

    Raises:
        ShapeError: The lengths differ, or a value is not finite.

    Source: Spearman 1904; the p value of drawn orders counts the observed one (Phipson and Smyth 2010).
    """
    if len(first) != len(second) or not np.isfinite([*first, *second]).all():
        raise ShapeError(f"{len(first)} and {len(second)} values cannot be ranked together: use finite pairs.")
    n = len(first)
    x, y = _standard_ranks(first), _standard_ranks(second)
    if n < 3 or x is None or y is None:
        return RankCorrelation(None, None, n)
    rho = float(x @ y)
    exact = n <= MOST_EXACT
    at_least = total = 0
    for orders in _orders(n, exact=exact, seed=seed):
        at_least += int((y[orders] @ x >= rho - 1e-9).sum())
        total += len(orders)
    p = at_least / total if exact else (at_least + 1) / (total + 1)
    return RankCorrelation(max(-1.0, min(1.0, rho)), p, n, exact)


def _standard_ranks(values: Sequence[float]) -> Floats | None:
    """Return the ranks with mean 0 and length 1, or None where all are equal."""
    ranks = rankdata(values) if len(values) else np.zeros(0)
    centred = ranks - ranks.mean() if len(ranks) else ranks
    length = math.sqrt(float(centred @ centred))
    return np.asarray(centred / length, dtype=np.float64) if length > 0 else None


def _orders(n: int, *, exact: bool, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield orders of n things in blocks of (k, n): all of them, or as many as are drawn."""
    if not exact:
        yield np.random.default_rng(seed).permuted(np.tile(np.arange(n), (_N_SHUFFLES, 1)), axis=1)
        return
    every = permutations(range(n))
    while block := list(islice(every, _CHUNK)):
        yield np.fromiter(chain.from_iterable(block), dtype=np.int64, count=len(block) * n).reshape(-1, n)
