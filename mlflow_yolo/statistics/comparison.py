"""Is one configuration better than the baseline? Intervals, tests over seeds, and the verdict that may be printed.

Two sources of evidence answer different questions and are named apart: a paired t test over training seeds (would it
hold if trained again?) and a paired bootstrap over test images (would it hold on other images?). "Better" is said only
where one of them is significant after Holm's correction over the configurations, and it says which.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy import stats

from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError

MIN_SEEDS = 3
"""Pairs below which no p value is given: with two, a t test has one degree of freedom and finds next to nothing."""


class Evidence(Protocol):
    """A difference (configuration minus baseline, higher is better) and its p value, None if there can be none."""

    @property
    def difference(self) -> float: ...

    @property
    def p(self) -> float | None: ...


@dataclass(frozen=True)
class TestResult:
    """A paired t test over seeds.

    Attributes:
        n: Number of pairs.
        difference: Mean of the differences.
        low: Lower end of the 95 % Student t interval of that mean; nan for one pair.
        high: Upper end.
        t: Test statistic; None where there is no p.
        p: Two-sided p value; None with fewer than three pairs or differences without spread.
        reason: Why there is no p; empty where there is one.
    """

    __test__ = False  # not a test case, whatever pytest makes of its name

    n: int
    difference: float
    low: float
    high: float
    t: float | None
    p: float | None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What may be said about one configuration against the baseline.

    Attributes:
        outcome: `better`, `worse` or `no difference shown`.
        sources: The significant sources, `seeds` and `images`; empty where no difference is shown.
        n_seeds: Pairs of seeds.
        p_seeds: p over seeds after Holm; None if there can be none.
        p_images: p over images after Holm; None if there can be none.
    """

    outcome: Literal["better", "worse", "no difference shown"]
    sources: tuple[str, ...]
    n_seeds: int
    p_seeds: float | None
    p_images: float | None

    @property
    def text(self) -> str:
        """Return the words to print: `better (seeds and images)` or `no difference shown (n=3)`."""
        return f"{self.outcome} ({' and '.join(self.sources) or f'n={self.n_seeds}'})"


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and its Student t interval.

    Args:
        values: One value per seed.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        (mean, low, high); low and high are nan for a single value.

    Raises:
        InputError: No values, or one that is not finite.
        ArgumentError: `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence} is not between 0 and 1: use 0.95.")
    array = _finite(values)
    mean = float(array.mean())
    if len(array) == 1:
        return mean, math.nan, math.nan
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1)) * error
    return mean, mean - half, mean + half


def paired_t(values: Sequence[float], baseline: Sequence[float]) -> TestResult:
    """Return the paired t test of `values` against `baseline`.

    Args:
        values: The configuration's value for each seed.
        baseline: The baseline's value for the same seeds in the same order.

    Returns:
        The result; its difference is `values` minus `baseline`. Without a p value for fewer than three pairs, and where
        all differences are the same: then the seeds tell nothing about how training varies.

    Raises:
        ShapeError: The lengths differ.
        InputError: No values, or one that is not finite.

    Source: Student, "The probable error of a mean" (1908); scipy.stats.ttest_rel is the test's oracle.
    """
    if len(values) != len(baseline):
        raise ShapeError(f"{len(values)} values cannot be paired with {len(baseline)}: use the same seeds for both.")
    first, second = _finite(values), _finite(baseline)
    differences = first - second
    n = len(differences)
    mean, low, high = mean_interval(differences.tolist())
    if n < MIN_SEEDS:
        return TestResult(n=n, difference=mean, low=low, high=high, t=None, p=None, reason=f"too few seeds (n={n})")
    # Equal differences of rounded decimals are equal only up to the last bits.
    if np.ptp(differences) <= 1e-12 * max(np.abs(first).max(), np.abs(second).max()):
        return TestResult(n=n, difference=mean, low=low, high=high, t=None, p=None, reason="no spread over seeds")
    t = mean / (float(differences.std(ddof=1)) / math.sqrt(n))
    return TestResult(n=n, difference=mean, low=low, high=high, t=t, p=2 * float(stats.t.sf(abs(t), n - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values after Holm's step-down correction, in the order given.

    Args:
        p_values: One p value per hypothesis of the family, in [0, 1].

    Returns:
        Adjusted p values in [0, 1], never below the given ones; empty for none.

    Raises:
        InputError: A p value is not in [0, 1].

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError(f"p values {list(p_values)} are not all in [0, 1]: leave out tests that gave none.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def compare(
    seeds: Mapping[str, TestResult], images: Mapping[str, Evidence] | None = None, *, alpha: float = 0.05
) -> dict[str, Verdict]:
    """Return the verdict on each configuration against the common baseline.

    A source speaks where its p value, after Holm over the configurations of that source, is below `alpha`. Where the
    two sources point in opposite directions, significant or not, no difference is shown.

    Args:
        seeds: Paired t test over seeds, by configuration; higher values are better.
        images: Paired bootstrap over test images, by configuration, of the same metric; None if there is none.
        alpha: Level of significance.

    Returns:
        By configuration, in the order of `seeds`; empty for none.

    Raises:
        InputError: `images` names other configurations than `seeds`.
        ArgumentError: `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ArgumentError(f"alpha={alpha} is not between 0 and 1: use 0.05.")
    if images is not None and set(images) != set(seeds):
        odd = ", ".join(sorted(set(images) ^ set(seeds)))
        raise InputError(f"{odd} has evidence from only one of seeds and images: compare the same configurations.")
    by_images = images or {}
    p_seeds, p_images = _adjusted(seeds), _adjusted(by_images)
    verdicts = {}
    for name, test in seeds.items():
        differences = [test.difference] + ([by_images[name].difference] if name in by_images else [])
        significant = {"seeds": p_seeds[name], "images": p_images.get(name)}
        sources = tuple(source for source, p in significant.items() if p is not None and p < alpha)
        if min(differences) < 0 < max(differences):
            sources = ()
        verdicts[name] = Verdict(
            outcome=_outcome(sources, sum(differences)),
            sources=sources,
            n_seeds=test.n,
            p_seeds=p_seeds[name],
            p_images=p_images.get(name),
        )
    return verdicts


def _outcome(sources: tuple[str, ...], difference: float) -> Literal["better", "worse", "no difference shown"]:
    if not sources:
        return "no difference shown"
    return "better" if difference > 0 else "worse"


def _adjusted(evidence: Mapping[str, Evidence]) -> dict[str, float | None]:
    """Return each p value after Holm over those that exist."""
    given = {name: source.p for name, source in evidence.items() if source.p is not None}
    adjusted = dict(zip(given, holm(list(given.values())), strict=True))
    return {name: adjusted.get(name) for name in evidence}


def _finite(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.array([float(value) for value in values])
    if not len(array):
        raise InputError("there are no values to average: measure at least one seed.")
    if not np.isfinite(array).all():
        raise InputError(f"values {array.tolist()} are not all finite: leave out the run that failed.")
    return array
