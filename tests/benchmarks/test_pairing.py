import numpy as np
import pytest

from benchmarks.pairing import amortised_ratio, paired_ratio


def test_paired_ratio_is_the_median_of_the_quotients() -> None:
    estimate = paired_ratio([2.0, 6.0, 5.0], [1.0, 2.0, 5.0])

    assert estimate.value == 2.0  # of 2, 3 and 1; the quotient of the medians would be 5 / 2
    assert estimate.low == 1.0
    assert estimate.high == 3.0
    assert estimate.n == 3


def test_paired_ratio_does_not_feel_a_machine_that_slows_down() -> None:
    speed = np.linspace(1.0, 3.0, 50)

    estimate = paired_ratio(1.05 * speed, speed)

    assert estimate.value == pytest.approx(1.05)
    assert estimate.low == pytest.approx(1.05)
    assert estimate.high == pytest.approx(1.05)


def test_interval_of_a_median_matches_its_asymptotic_width() -> None:
    n, sigma = 401, 0.02
    noise = np.random.default_rng(1).normal(1.0, sigma, n)

    estimate = paired_ratio(noise, np.ones(n))

    standard_error = sigma * np.sqrt(np.pi / 2 / n)  # of a normal sample's median
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * standard_error, rel=0.3)
    assert estimate.low < estimate.value < estimate.high


def test_interval_holds_the_truth_about_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(2)
    estimates = [paired_ratio(generator.normal(1.0, 0.1, 41), np.ones(41)) for _ in range(200)]

    held = np.mean([estimate.low <= 1.0 <= estimate.high for estimate in estimates])

    assert 0.90 <= held <= 0.99


def test_same_seed_gives_the_same_interval() -> None:
    times = np.random.default_rng(3).normal(1.0, 0.1, 30)

    assert paired_ratio(times, np.ones(30), seed=4) == paired_ratio(times, np.ones(30), seed=4)
    assert paired_ratio(times, np.ones(30), seed=4) != paired_ratio(times, np.ones(30), seed=5)


def test_amortised_ratio_counts_each_kind_of_moment_as_often_as_it_occurs() -> None:
    sampled, others, end = ([110.0] * 3, [100.0] * 3), ([101.0] * 3, [100.0] * 3), ([550.0] * 2, [500.0] * 2)

    estimate = amortised_ratio([(*sampled, 20), (*others, 80), (*end, 1)], base=100 * 100.0)

    assert estimate.value == pytest.approx(1 + (20 * 10 + 80 * 1 + 50) / 10_000)
    assert estimate.low == pytest.approx(estimate.value)
    assert estimate.n == 8


def test_amortised_ratio_leaves_out_a_kind_that_never_occurs() -> None:
    estimate = amortised_ratio([([3.0], [1.0], 4), ([], [], 0.0)], base=10.0)

    assert estimate.value == pytest.approx(1.8)


@pytest.mark.parametrize("strata", [[], [([], [], 2.0)], [([1.0], [1.0, 2.0], 1.0)], [([1.0], [1.0], 0.0)]])
def test_amortised_ratio_refuses_what_it_cannot_pair(strata: list[tuple[list[float], list[float], float]]) -> None:
    with pytest.raises(ValueError, match="pair"):
        amortised_ratio(strata, base=1.0)


@pytest.mark.parametrize(("arm", "peer"), [([], []), ([1.0], [1.0, 2.0])])
def test_paired_ratio_refuses_what_it_cannot_pair(arm: list[float], peer: list[float]) -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_ratio(arm, peer)
