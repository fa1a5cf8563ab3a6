import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from mlflow_yolo.exceptions import ArgumentError, InputError, ShapeError
from mlflow_yolo.statistics.comparison import TestResult, compare, holm, mean_interval, paired_t


@dataclasses.dataclass(frozen=True)
class _Images:
    difference: float
    p: float | None


def _seeds(difference, p, n=3):
    return TestResult(n=n, difference=difference, low=math.nan, high=math.nan, t=None, p=p)


def test_interval_of_three_seeds_by_hand():
    # mean .5, standard deviation .1, t(.975, 2) = 4.302653
    mean, low, high = mean_interval([0.4, 0.5, 0.6])
    assert mean == pytest.approx(0.5)
    assert high - mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


def test_interval_equals_scipy_and_covers_as_often_as_it_says():
    values = np.random.default_rng(0).normal(3, 2, (2000, 4))
    intervals = [mean_interval(row, confidence=0.9) for row in values]
    expected = stats.t.interval(0.9, 3, loc=values[0].mean(), scale=stats.sem(values[0]))
    np.testing.assert_allclose(intervals[0][1:], expected)
    assert np.mean([low < 3 < high for _, low, high in intervals]) == pytest.approx(0.9, abs=0.025)


def test_one_seed_has_a_mean_and_no_interval():
    assert mean_interval([0.7]) == (0.7, pytest.approx(math.nan, nan_ok=True), pytest.approx(math.nan, nan_ok=True))


def test_paired_t_equals_scipy():
    rng = np.random.default_rng(1)
    for n in (3, 5, 20):
        values, baseline = rng.normal(0.5, 0.1, (2, n))
        result, expected = paired_t(values, baseline), stats.ttest_rel(values, baseline)
        assert (result.t, result.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
        interval = expected.confidence_interval(0.95)
        assert (result.low, result.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert (result.n, result.difference) == (n, pytest.approx(np.mean(values - baseline)))


def test_paired_t_changes_sign_with_its_arguments_and_ignores_the_order_of_seeds():
    a, b = [0.50, 0.53, 0.51, 0.58], [0.47, 0.52, 0.50, 0.51]
    there, back = paired_t(a, b), paired_t(b, a)
    assert (there.t, there.p) == (pytest.approx(-back.t), pytest.approx(back.p))
    shuffled = paired_t(a[::-1], b[::-1])
    assert (shuffled.t, shuffled.p) == (pytest.approx(there.t), pytest.approx(there.p))


@pytest.mark.parametrize(
    ("values", "baseline", "reason"),
    [
        ([0.5], [0.4], "n=1"),
        ([0.5, 0.6], [0.4, 0.4], "n=2"),
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], "no spread"),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], "no spread"),
    ],
)
def test_too_few_seeds_or_no_spread_give_no_p(values, baseline, reason):
    result = paired_t(values, baseline)
    assert (result.t, result.p) == (None, None)
    assert reason in result.reason
    assert result.difference == pytest.approx(np.mean(values) - np.mean(baseline))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, never falling: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_exactly_what_the_step_down_rule_rejects():
    rng = np.random.default_rng(2)
    for _ in range(200):
        p = rng.random(6) ** 3
        rejected = np.zeros(6, dtype=bool)
        for step, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (6 - step):
                break
            rejected[index] = True
        np.testing.assert_array_equal(np.array(holm(p)) <= 0.05, rejected)


@pytest.mark.parametrize(
    ("seeds", "images", "text"),
    [
        (_seeds(0.02, 0.01), _Images(0.02, 0.002), "better (seeds and images)"),
        (_seeds(0.02, 0.01), _Images(0.02, 0.3), "better (seeds)"),
        (_seeds(0.02, 0.2), _Images(0.02, 0.002), "better (images)"),
        (_seeds(-0.02, 0.01), _Images(-0.02, 0.002), "worse (seeds and images)"),
        (_seeds(-0.02, None, n=2), _Images(-0.02, 0.002), "worse (images)"),
        (_seeds(0.02, 0.2), _Images(0.02, 0.3), "no difference shown (n=3)"),
        (_seeds(0.02, None, n=1), None, "no difference shown (n=1)"),
        (_seeds(0.02, 0.01), None, "better (seeds)"),
        (_seeds(0.02, 0.05), None, "no difference shown (n=3)"),
        (_seeds(0.02, 0.01), _Images(-0.02, 0.002), "no difference shown (n=3)"),
        (_seeds(0.02, 0.01), _Images(-0.001, 0.9), "no difference shown (n=3)"),
    ],
)
def test_verdict_names_its_sources(seeds, images, text):
    assert compare({"3": seeds}, None if images is None else {"3": images})["3"].text == text


def test_verdicts_are_corrected_for_the_number_of_configurations():
    seeds = {"3": _seeds(0.02, 0.03), "6": _seeds(0.02, 0.02), "10": _seeds(0.02, None, n=2)}
    images = {"3": _Images(0.02, 0.01), "6": _Images(0.02, 0.04), "10": _Images(0.02, 0.03)}
    verdicts = compare(seeds, images)
    # two p over seeds: .02 x 2 = .04, then .03; three over images: .01 x 3, .03 x 2, .06
    assert [verdicts[name].p_seeds for name in seeds] == [pytest.approx(0.04), pytest.approx(0.04), None]
    assert [verdicts[name].p_images for name in seeds] == pytest.approx([0.03, 0.06, 0.06])
    assert [verdicts[name].text for name in seeds] == [
        "better (seeds and images)",
        "better (seeds)",
        "no difference shown (n=2)",
    ]
    reordered = compare(dict(reversed(seeds.items())), dict(reversed(images.items())))
    assert reordered == verdicts
    assert list(reordered) == ["10", "6", "3"]


def test_nothing_to_compare_gives_no_verdict():
    assert compare({}) == {}
    assert compare({}, {}) == {}


def test_input_that_cannot_be_compared_raises():
    with pytest.raises(ShapeError, match=r"3 values .* 2"):
        paired_t([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="no values"):
        mean_interval([])
    with pytest.raises(InputError, match="nan"):
        paired_t([0.5, math.nan, 0.5], [0.4, 0.4, 0.3])
    with pytest.raises(InputError, match=r"1\.5"):
        holm([0.1, 1.5])
    with pytest.raises(ArgumentError, match="confidence=95"):
        mean_interval([1, 2], confidence=95)
    with pytest.raises(ArgumentError, match="alpha=5"):
        compare({}, alpha=5)
    with pytest.raises(InputError, match="10, 6"):
        compare({"3": _seeds(0.1, 0.1), "6": _seeds(0.1, 0.1)}, {"3": _Images(0.1, 0.1), "10": _Images(0.1, 0.1)})
