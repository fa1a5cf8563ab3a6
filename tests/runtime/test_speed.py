import math

import numpy as np
import pytest
from scipy import stats

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult, summarise
from mlflow_yolo.runtime.hardware import Hardware
from mlflow_yolo.runtime.speed import speedup

MACHINE = Hardware("EPYC", "avx2", False, 2, 1, 0.1, "3.11.7", {})


def result(name: str, rounds, *, benchmark: str = "b", error: str = "") -> BenchmarkResult:
    turns = [
        {
            "latency_ms": [ms],
            "preprocess_ms": [1.0],
            "postprocess_ms": [1.0],
            "throughput": {},
            "peak_memory_mb": 1.0,
            "load_s": 1.0,
            "fixed_batch": None,
        }
        for ms in rounds
    ]
    return summarise(name, turns, size_mb=1.0, n_warmup=0, hardware=MACHINE, benchmark=benchmark, date="", error=error)


def test_ten_rounds_give_their_median_and_the_second_from_either_end() -> None:
    # Binomial tables: P(at most 1 of 10) = 11 / 1024 = .011, P(at most 2 of 10) = 56 / 1024 = .055; .025 lies between.
    ratios = np.array([1.30, 1.10, 1.26, 1.22, 1.28, 1.24, 0.60, 1.20, 1.25, 9.00])
    ratio = speedup(result("a", 10 * ratios), result("b", np.full(10, 10.0)))
    assert ratio.value == pytest.approx(math.sqrt(1.24 * 1.25))
    assert (ratio.low, ratio.high) == pytest.approx((1.10, 1.30))
    assert ratio.n_rounds == 10


@pytest.mark.parametrize(("n_rounds", "level"), [(6, 0.95), (12, 0.9), (12, 0.95), (12, 0.99), (25, 0.95)])
def test_the_interval_holds_the_ratios_that_the_sign_test_does_not_reject(n_rounds: int, level: float) -> None:
    rng = np.random.default_rng(1)
    one, other = rng.lognormal(size=n_rounds), rng.lognormal(size=n_rounds)
    ratio = speedup(result("a", one), result("b", other), level=level)

    def p(value: float) -> float:
        return float(stats.binomtest(int(np.sum(one / other > value)), n_rounds).pvalue)

    for end, inwards in ((ratio.low, 1 + 1e-9), (ratio.high, 1 - 1e-9)):
        assert p(end * inwards) > 1 - level
        assert p(end / inwards) <= 1 - level


def test_twice_as_fast_in_every_round_is_two_without_doubt() -> None:
    rounds = np.array([17.0, 25.0, 18.0, 16.0, 40.0, 17.5, 17.0])
    ratio = speedup(result("a", rounds), result("b", rounds / 2))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_turned_round_the_ratio_is_the_inverse() -> None:
    rng = np.random.default_rng(0)
    a, b = result("a", rng.lognormal(size=8)), result("b", rng.lognormal(size=8))
    there, back = speedup(a, b), speedup(b, a)
    assert (back.value, back.low, back.high) == pytest.approx((1 / there.value, 1 / there.high, 1 / there.low))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_too_few_rounds_for_the_sign_test_give_students_interval(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.lognormal(size=n), rng.lognormal(size=n)
    ratio = speedup(result("a", a), result("b", b))
    expected = stats.ttest_1samp(np.log(a / b), 0).confidence_interval(0.95)
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx((expected.low, expected.high))


def test_a_single_round_says_nothing_about_the_noise() -> None:
    ratio = speedup(result("a", [20.0]), result("b", [10.0]))
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(2.0), 0.0, math.inf)


def test_one_disturbed_round_does_not_widen_the_interval_without_bounds() -> None:
    rounds = np.full(10, 20.0)
    disturbed = rounds * np.array([0.99, 1.01, 0.98, 50, 1.0, 1.02, 0.99, 1.0, 1.01, 1.0])
    ratio = speedup(result("a", rounds), result("b", disturbed))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.0, 1 / 1.02, 1 / 0.99))


@pytest.mark.parametrize("n_rounds", [4, 6, 10])
def test_two_copies_are_told_apart_in_at_most_one_of_twenty_benchmarks(n_rounds: int) -> None:
    # A machine with moods (a shared, drifting factor), bursts that hit one of the two, and its usual jitter.
    rng = np.random.default_rng(n_rounds)
    n_benchmarks = 600
    held = 0
    for _ in range(n_benchmarks):
        mood = np.exp(np.cumsum(rng.normal(0, 0.1, n_rounds)))
        burst = 1 + 0.5 * rng.random((2, n_rounds)) * (rng.random((2, n_rounds)) < 0.15)
        a, b = 17.7 * mood * burst * np.exp(rng.normal(0, 0.03, (2, n_rounds)))
        ratio = speedup(result("a", a), result("b", b))
        held += ratio.low <= 1 <= ratio.high
    assert held / n_benchmarks > 0.95 - 3 * math.sqrt(0.95 * 0.05 / n_benchmarks)
    assert held < n_benchmarks, "an interval that always holds says nothing"


def test_a_candidate_that_failed_has_no_ratio() -> None:
    ratio = speedup(result("a", [20.0] * 6), result("b", [], error="crashed"))
    assert math.isnan(ratio.value)
    assert math.isnan(ratio.low)
    assert ratio.n_rounds == 0


def test_results_of_different_benchmarks_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'b' were not measured side by side"):
        speedup(result("a", [20.0] * 6), result("b", [20.0] * 6, benchmark="another"))
    with pytest.raises(ArgumentError, match="level=95"):
        speedup(result("a", [20.0]), result("b", [20.0]), level=95)
