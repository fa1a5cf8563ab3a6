"""Ratios of times that were taken side by side, and how sure they are.

Two arms take their n-th step one after the other, so what the machine does meanwhile hits both alike: the ratio of the
pair is far steadier than the ratio of two averages taken minutes apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end.
        n: Pairs it rests on.
    """

    value: float
    low: float
    high: float
    n: int


def paired_ratio(arm: Sequence[float], peer: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the median over pairs of arm / peer, with a percentile bootstrap interval over pairs.

    Args:
        arm: Times of the arm, one per pair, > 0.
        peer: Times of the peer, same length and unit.
        seed: Of the resampling.

    Raises:
        ValueError: The lengths differ or there is no pair.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    ratios = _pairs(arm, peer)
    quotients = ratios[:, 0] / ratios[:, 1]
    return _bootstrap([quotients], lambda samples: np.median(samples[0], axis=-1), seed=seed)


def paired_extra(arm: Sequence[float], peer: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the median over pairs of arm - peer, in the unit of the times, with its interval; see `paired_ratio`."""
    pairs = _pairs(arm, peer)
    return _bootstrap([pairs[:, 0] - pairs[:, 1]], lambda samples: np.median(samples[0], axis=-1), seed=seed)


def amortised_ratio(
    strata: Sequence[tuple[Sequence[float], Sequence[float], float]], *, base: float, seed: int = 0
) -> Estimate:
    """Return 1 + what an arm adds to an epoch / what the epoch costs without it.

    An arm that does nothing at most steps and much at a few has no meaningful median over all steps: it would be that
    of doing nothing. Here each kind of moment (a sampled step, another step, the end of the epoch) has a median of its
    own and counts as often as it occurs.

    Args:
        strata: For each kind of moment the times of the arm, those of the peer (same length, one per pair), and how
            often the moment occurs in an epoch. A kind without pairs must not occur.
        base: What the steps of an epoch cost without the arm, in the unit of the times.
        seed: Of the resampling, which is done within each kind.

    Raises:
        ValueError: Lengths differ, no kind has a pair, or one that occurs has none.
    """
    if any(count and not len(arm) for arm, _, count in strata):
        raise ValueError("a kind of moment that occurs has no pair to judge it by")
    used = [(_pairs(arm, peer), count) for arm, peer, count in strata if count]
    if not used:
        raise ValueError("no pairs")
    extras = [pairs[:, 0] - pairs[:, 1] for pairs, _ in used]

    def ratio(samples: Sequence[Floats]) -> Floats:
        medians = [np.median(sample, axis=-1) * count for sample, (_, count) in zip(samples, used, strict=True)]
        return np.asarray(1.0 + np.sum(medians, axis=0) / base)

    return _bootstrap(extras, ratio, seed=seed)


def _pairs(arm: Sequence[float], peer: Sequence[float]) -> Floats:
    if len(arm) != len(peer) or not len(arm):
        raise ValueError(f"{len(arm)} times cannot be paired with {len(peer)}")
    return np.column_stack([np.asarray(arm, dtype=np.float64), np.asarray(peer, dtype=np.float64)])


def _bootstrap(samples: Sequence[Floats], statistic: Callable[[Sequence[Floats]], Floats], *, seed: int) -> Estimate:
    """Return the statistic of the samples and its percentile interval; each sample is resampled by itself."""
    generator = np.random.default_rng(seed)
    drawn = [sample[generator.integers(0, len(sample), (N_RESAMPLES, len(sample)))] for sample in samples]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(statistic(drawn), [tail, 100 - tail])
    return Estimate(float(statistic(samples)), float(low), float(high), sum(len(sample) for sample in samples))
