"""The comparison of configurations, against hand arithmetic and scipy."""

import math
from collections.abc import Callable

import pytest
from scipy import stats

from mlflow_yolo.studies.freeze.analysis import Child, analyse

MakeChild = Callable[..., Child]
BASE, DEEP = [0.50, 0.52, 0.51], [0.60, 0.63, 0.61]


def test_means_and_intervals_are_over_seeds_on_the_test_split(make_child: MakeChild) -> None:
    children = [make_child(word, s, v) for word, vs in (("0", BASE), ("10", DEEP)) for s, v in enumerate(vs)]

    analysis = analyse(children)

    assert analysis is not None
    assert (analysis.metric, analysis.split, analysis.n_images, analysis.n_seeds) == ("mAP50-95", "test", 20, 3)
    assert [row.freeze.word for row in analysis.rows] == ["0", "10"]
    for row, values in zip(analysis.rows, (BASE, DEEP), strict=True):
        low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
        assert (row.mean, row.low, row.high) == pytest.approx((sum(values) / 3, low, high))
    assert (analysis.rows[0].mean, analysis.rows[1].mean) == pytest.approx((0.51, 0.6133333))


def test_the_difference_is_paired_by_seed_and_tested_as_scipy_does(make_child: MakeChild) -> None:
    children = [make_child(word, s, v) for word, vs in (("0", BASE), ("10", DEEP)) for s, v in enumerate(vs)]

    analysis = analyse(children)

    assert analysis is not None
    assert analysis.baseline.seeds is None
    found, expected = analysis.rows[1].seeds, stats.ttest_rel(DEEP, BASE)
    assert found is not None
    assert found.difference == pytest.approx((0.10 + 0.11 + 0.10) / 3)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    verdict = analysis.rows[1].verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.sources) == ("better", ("seeds",))


def test_p_values_are_corrected_over_the_configurations(make_child: MakeChild) -> None:
    third = [0.51, 0.51, 0.53]
    groups = (("0", BASE), ("3", third), ("10", DEEP))
    children = [make_child(word, s, v) for word, vs in groups for s, v in enumerate(vs)]

    analysis = analyse(children)

    assert analysis is not None
    p_deep, p_third = stats.ttest_rel(DEEP, BASE).pvalue, stats.ttest_rel(third, BASE).pvalue
    found = {row.freeze.word: row.verdict.p_seeds for row in analysis.rows if row.verdict}
    assert found == pytest.approx({"10": 2 * p_deep, "3": p_third})  # Holm: the smallest times 2, the other times 1


def test_the_order_of_children_does_not_matter(make_child: MakeChild) -> None:
    groups = (("0", BASE, 10), ("10", DEEP, 18))
    children = [make_child(w, s, v, n_right=n) for w, vs, n in groups for s, v in enumerate(vs)]

    first, second = analyse(children, n_resamples=50), analyse(children[::-1], n_resamples=50)

    assert first is not None
    assert second is not None
    rows = [{row.freeze.word: (row.mean, row.seeds, row.images) for row in a.rows} for a in (first, second)]
    assert rows[0] == rows[1]
    assert second.baseline.freeze.word == "0"
    assert [child.seed for child in second.rows[1].children] == [0, 1, 2]


def test_only_seeds_that_every_configuration_has_are_compared(make_child: MakeChild) -> None:
    children = [make_child("0", seed, value) for seed, value in ((0, 0.5), (1, 0.7), (2, 0.9))]
    children += [make_child("10", seed, value) for seed, value in ((2, 0.95), (1, 0.85))]

    analysis = analyse(children)

    assert analysis is not None
    assert analysis.n_seeds == 2
    assert [[child.seed for child in row.children] for row in analysis.rows] == [[1, 2], [1, 2]]
    assert [row.mean for row in analysis.rows] == pytest.approx([0.8, 0.9])
    assert analysis.rows[1].seeds is not None
    assert analysis.rows[1].seeds.difference == pytest.approx((0.15 + 0.05) / 2)


def test_a_configuration_without_results_is_left_out(make_child: MakeChild) -> None:
    analysis = analyse([make_child("0", 0, 0.5), make_child("10", 0, 0.6)])

    assert analysis is not None
    assert [row.freeze.word for row in analysis.rows] == ["0", "10"]


@pytest.mark.parametrize("words", [[], ["10", "3"]])
def test_without_a_baseline_there_is_nothing_to_compare(make_child: MakeChild, words: list[str]) -> None:
    assert analyse([make_child(word, 0, 0.5) for word in words]) is None


def test_without_a_common_seed_there_is_nothing_to_compare(make_child: MakeChild) -> None:
    assert analyse([make_child("0", 0, 0.5), make_child("10", 1, 0.5)]) is None


def test_one_seed_gives_a_mean_without_interval_and_without_p(make_child: MakeChild) -> None:
    analysis = analyse([make_child("0", 0, 0.5), make_child("10", 0, 0.6)])

    assert analysis is not None
    row = analysis.rows[1]
    assert row.mean == 0.6
    assert math.isnan(row.low)
    assert math.isnan(row.high)
    assert row.seeds is not None
    assert row.verdict is not None
    assert (row.seeds.p, row.verdict.p_seeds, row.verdict.outcome) == (None, None, "no difference shown")
    assert row.verdict.text == "no difference shown (n=1)"


def test_only_a_baseline_has_no_tests(make_child: MakeChild) -> None:
    analysis = analyse([make_child("0", seed, value, n_right=10) for seed, value in enumerate(BASE)])

    assert analysis is not None
    assert (len(analysis.rows), analysis.n_resamples) == (1, 0)
    assert (analysis.baseline.seeds, analysis.baseline.images, analysis.baseline.verdict) == (None, None, None)


def test_without_a_test_split_values_and_images_are_those_of_val(make_child: MakeChild) -> None:
    children = [make_child(word, 0, value, n_right=10, splits=["val"]) for word, value in (("0", 0.5), ("10", 0.6))]

    analysis = analyse(children, n_resamples=20)

    assert analysis is not None
    assert (analysis.split, analysis.baseline.mean) == ("val", 0.5)
    assert analysis.rows[1].images is not None


@pytest.mark.parametrize(("n_base", "n_deep", "outcome"), [(8, 18, "better"), (18, 8, "worse")])
def test_one_seed_can_still_be_judged_over_images(
    make_child: MakeChild, n_base: int, n_deep: int, outcome: str
) -> None:
    children = [make_child("0", 0, n_base / 20, n_right=n_base), make_child("10", 0, n_deep / 20, n_right=n_deep)]

    analysis = analyse(children, n_resamples=400)

    assert analysis is not None
    row = analysis.rows[1]
    assert row.images is not None
    assert row.verdict is not None
    assert (row.verdict.outcome, row.verdict.sources) == (outcome, ("images",))
    # AP of h exact finds among n objects without a false one is the share of the 101 recall points up to h/n.
    expected = (math.floor(100 * n_deep / 20 + 1e-9) - math.floor(100 * n_base / 20 + 1e-9)) / 101
    assert row.images.difference == pytest.approx(expected, abs=1e-9)
    assert (row.images.low > 0, row.images.high < 0) == (outcome == "better", outcome == "worse")


def test_the_same_predictions_show_no_difference(make_child: MakeChild) -> None:
    analysis = analyse([make_child(word, 0, 0.5, n_right=10) for word in ("0", "10")], n_resamples=50)

    assert analysis is not None
    row = analysis.rows[1]
    assert row.images is not None
    assert row.verdict is not None
    assert (row.images.difference, row.images.p, row.verdict.outcome) == (0.0, 1.0, "no difference shown")


def test_sources_that_disagree_show_no_difference(make_child: MakeChild) -> None:
    children = [make_child("0", s, v, n_right=18) for s, v in enumerate(BASE)]
    children += [make_child("10", s, v, n_right=8) for s, v in enumerate(DEEP)]

    analysis = analyse(children, n_resamples=200)

    assert analysis is not None
    row = analysis.rows[1]
    assert row.verdict is not None
    assert row.verdict.p_seeds is not None
    assert row.verdict.p_images is not None
    assert max(row.verdict.p_seeds, row.verdict.p_images) < 0.05
    assert row.verdict.outcome == "no difference shown"


def test_a_classifier_is_compared_by_top1_over_its_labels(make_child: MakeChild) -> None:
    children = [
        make_child("0", 0, 0.4, n_right=8, task="classify"),
        make_child("10", 0, 0.9, n_right=18, task="classify"),
    ]

    analysis = analyse(children, n_resamples=400)

    assert analysis is not None
    assert (analysis.metric, analysis.task, analysis.rows[1].mean) == ("top1", "classify", 0.9)
    row = analysis.rows[1]
    assert row.images is not None
    assert row.verdict is not None
    assert row.images.difference == pytest.approx(0.5)  # 18 of 20 against 8 of 20
    assert row.verdict.sources == ("images",)


def test_averages_of_costs_leave_out_children_without_the_value(make_child: MakeChild) -> None:
    children = [
        make_child("0", 0, 0.5, epochs_to_90=2),
        make_child("0", 1, 0.5),
        make_child("0", 2, 0.5, epochs_to_90=4),
    ]

    analysis = analyse(children)

    assert analysis is not None
    assert analysis.baseline.average("epochs_to_90") == 3.0
    assert analysis.baseline.average("overfit_gap") == 0.125
    assert math.isnan(analysis.baseline.average("time_to_90_s"))
