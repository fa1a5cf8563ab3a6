import dataclasses

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.attribution.attention_iou import attention_iou
from mlflow_yolo.attribution.bias import (
    Case,
    PairCase,
    bias_table,
    co_occurrence_table,
    coco_sizes,
    heat_map_baseline,
    pair_table,
)
from mlflow_yolo.exceptions import ArgumentError, ShapeError

NAMES = ("RBC", "WBC", "Platelets")
NAN = float("nan")


def row_of(table, **key):
    """Return the only row with these values."""
    found = table[np.logical_and.reduce([table[name] == value for name, value in key.items()])]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture
def cases():
    return [
        Case("a", 0, "small", "TP", 0.9, 0.2),
        Case("a", 0, "small", "FN", 0.1, 0.2),
        Case("b", 0, "large", "TP", 0.7, 0.5),
        Case("b", 2, "small", "FP", 0.4, 0.1),
        Case("c", 2, "small", "TP", NAN, 0.1),
        Case("c", 2, "small", "TP", 0.3, NAN),
    ]


def test_means_and_lift_by_hand(cases):
    table = bias_table(cases, NAMES)
    row = row_of(table, **{"class": "RBC", "size": "all", "outcome": "all"})
    assert (row["n"], row["n_left_out"], row["n_images"], row["class_id"]) == (3, 0, 2, 0)
    assert row["score"] == pytest.approx(1.7 / 3)
    assert row["baseline"] == pytest.approx(0.3)
    assert row["lift"] == pytest.approx((1.7 / 3 - 0.3) / 0.7)
    whole = row_of(table, **{"class": "all", "size": "all", "outcome": "all"})
    assert (whole["n"], whole["n_left_out"], whole["n_images"]) == (4, 2, 2)
    assert whole["score"] == pytest.approx(2.1 / 4)
    assert whole["class_id"] is pd.NA


def test_there_is_a_row_for_every_stratum_with_cases_and_for_no_other(cases):
    table = bias_table(cases, NAMES)
    expected = {
        (name, size, outcome)
        for case in cases
        for name in ("all", NAMES[case.class_id])
        for size in ("all", case.size)
        for outcome in ("all", case.outcome)
    }
    found = list(table[["class", "size", "outcome"]].itertuples(index=False, name=None))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert list(dict.fromkeys(table["class"])) == ["all", "RBC", "Platelets"]
    assert row_of(table, **{"class": "RBC", "size": "small", "outcome": "FN"})["score"] == pytest.approx(0.1)


def test_cases_without_a_score_or_a_baseline_are_counted_and_never_averaged_as_0(cases):
    table = bias_table(cases, NAMES)
    row = row_of(table, **{"class": "Platelets", "size": "small", "outcome": "TP"})
    assert (row["n"], row["n_left_out"], row["n_images"]) == (0, 2, 0)
    assert row[["score", "score_low", "baseline", "lift", "lift_high"]].isna().all()
    together = row_of(table, **{"class": "Platelets", "size": "all", "outcome": "all"})
    assert (together["n"], together["n_left_out"], together["score"]) == (1, 2, pytest.approx(0.4))


def many_cases(seed, n_images, n_classes=2):
    rng = np.random.default_rng(seed)
    return [
        Case(f"{image}.jpg", int(rng.integers(n_classes)), "small", "TP", float(score), float(baseline))
        for image in range(n_images)
        for score, baseline in rng.uniform([0.3, 0.1], [0.9, 0.3], (int(rng.integers(1, 6)), 2))
    ]


def test_intervals_of_score_and_lift_equal_drawing_images_one_by_one():
    cases = many_cases(0, 25)
    row = row_of(bias_table(cases, NAMES), **{"class": "WBC", "size": "all", "outcome": "all"})
    by_image = {}
    for case in cases:
        if case.class_id == 1:
            by_image.setdefault(case.image, []).append((case.score, case.baseline))
    naive, names, drawn = np.random.RandomState(1), list(by_image), []
    for _ in range(6000):
        chosen = naive.choice(len(names), len(names))
        score, baseline = np.mean([pair for i in chosen for pair in by_image[names[i]]], axis=0)
        drawn.append((score, (score - baseline) / (1 - baseline)))
    ends = np.percentile(drawn, [2.5, 97.5], axis=0)
    for i, name in enumerate(("score", "lift")):
        found = [row[f"{name}_low"], row[f"{name}_high"]]
        np.testing.assert_allclose(found, ends[:, i], atol=0.08 * np.ptp(ends[:, i]))
        assert found[0] < row[name] < found[1]
    assert row["n_images"] == len(names)


def test_a_stratum_on_few_images_has_means_and_no_interval():
    cases = [dataclasses.replace(case, image=f"{i % 9}") for i, case in enumerate(many_cases(1, 40))]
    row = row_of(bias_table(cases, NAMES), **{"class": "all", "size": "all", "outcome": "all"})
    assert row["n"] > 60
    assert row["n_images"] == 9
    assert np.isfinite(row["score"])
    assert row[["score_low", "score_high", "lift_low", "lift_high"]].isna().all()


def test_a_row_depends_neither_on_the_order_of_cases_nor_on_other_classes():
    cases = many_cases(2, 30)
    table = bias_table(cases, NAMES)
    alone = bias_table([case for case in reversed(cases) if case.class_id == 1], NAMES)
    expected = table[table["class"] == "WBC"].reset_index(drop=True)
    found = alone[alone["class"] == "WBC"].reset_index(drop=True)
    assert expected["score_low"].notna().all()
    pd.testing.assert_frame_equal(found, expected)


def test_a_baseline_of_1_leaves_no_lift():
    row = bias_table([Case("a", 0, "large", "TP", 1.0, 1.0)], NAMES).iloc[0]
    assert row["score"] == 1.0
    assert np.isnan(row["lift"])


def test_no_cases_give_a_table_without_rows_and_with_all_columns(cases):
    assert list(bias_table([], NAMES).columns) == list(bias_table(cases, NAMES).columns)
    assert len(bias_table([], NAMES)) == len(pair_table([], NAMES)) == len(co_occurrence_table([], NAMES)) == 0
    assert "lift_high" in pair_table([], NAMES).columns


def test_confused_pairs_are_directed_and_the_most_frequent_come_first():
    cases = [
        PairCase("a", 1, 0, 0.5, 0.4),
        PairCase("a", 0, 1, 0.8, 0.4),
        PairCase("b", 0, 1, 0.6, 0.4),
        PairCase("b", 2, 0, NAN, NAN),
        PairCase("c", 2, 0, NAN, NAN),
        PairCase("c", 2, 0, 0.7, 0.1),
    ]
    table = pair_table(cases, NAMES)
    assert list(zip(table["class"], table["other"], strict=True)) == [
        ("Platelets", "RBC"),
        ("RBC", "WBC"),
        ("WBC", "RBC"),
    ]
    assert list(table["n"]) == [1, 2, 1]
    assert list(table["n_left_out"]) == [2, 0, 0]
    np.testing.assert_allclose(table["score"], [0.7, 0.7, 0.5])
    np.testing.assert_allclose(table["lift"], [0.6 / 0.9, 0.3 / 0.6, 0.1 / 0.6])


def test_co_occurrence_lists_the_largest_lift_first_and_unmeasured_pairs_last():
    cases = [
        PairCase("a", 0, 1, 0.3, 0.2),
        PairCase("a", 1, 0, 0.6, 0.2),
        PairCase("b", 0, 2, NAN, 0.2),
        PairCase("b", 2, 0, 0.1, 0.2),
    ]
    table = co_occurrence_table(cases, NAMES)
    assert list(table["lift"][:3]) == [pytest.approx(0.5), pytest.approx(0.125), pytest.approx(-0.125)]
    assert list(zip(table["class_id"], table["other_id"], strict=True)) == [(1, 0), (0, 1), (2, 0), (0, 2)]
    assert np.isnan(table["lift"].iloc[3])
    assert "own_with" not in table.columns


def test_own_scores_with_and_without_the_other_class_by_hand():
    own = [
        Case("a", 0, "small", "TP", 0.2, 0.1),
        Case("b", 0, "small", "TP", 0.6, 0.1),
        Case("b", 0, "small", "TP", 0.8, 0.1),
        Case("c", 0, "small", "TP", NAN, 0.1),
        Case("a", 1, "small", "TP", 0.9, 0.1),
    ]
    # the map of class 0 on class 1 was empty in image a: the image still holds both
    row = co_occurrence_table([PairCase("a", 0, 1, NAN, 0.2), PairCase("d", 0, 1, 0.4, 0.2)], NAMES, own=own).iloc[0]
    assert (row["own_with"], row["own_without"]) == (pytest.approx(0.2), pytest.approx(0.7))
    assert row["own_difference"] == pytest.approx(-0.5)
    assert np.isnan(row["own_low"])


def test_the_interval_of_the_own_difference_has_the_width_of_two_independent_means():
    rng = np.random.default_rng(3)
    n_with, n_without = 60, 140
    scores = np.concatenate([rng.normal(0.4, 0.1, n_with), rng.normal(0.6, 0.2, n_without)])
    own = [Case(f"{i}", 0, "small", "TP", float(score), 0.1) for i, score in enumerate(scores)]
    both = [PairCase(f"{i}", 0, 1, 0.3, 0.2) for i in range(n_with)]
    row = co_occurrence_table(both, NAMES, own=own, n_resamples=4000).iloc[0]
    difference = scores[:n_with].mean() - scores[n_with:].mean()
    error = np.sqrt(scores[:n_with].var() / n_with + scores[n_with:].var() / n_without)
    assert row["own_difference"] == pytest.approx(difference)
    ends = (np.array([row["own_low"], row["own_high"]]) - difference) / error
    np.testing.assert_allclose(ends, [-1.96, 1.96], atol=0.2)


def test_without_ten_images_on_both_sides_the_difference_has_no_interval():
    own = [Case(f"{i}", 0, "small", "TP", 0.5 + i / 100, 0.1) for i in range(30)]
    for n_with, has_interval in ((9, False), (10, True), (20, True), (21, False)):
        both = [PairCase(f"{i}", 0, 1, 0.3, 0.2) for i in range(n_with)]
        row = co_occurrence_table(both, NAMES, own=own, n_resamples=50).iloc[0]
        assert np.isfinite(row["own_low"]) == np.isfinite(row["own_high"]) == has_interval


def test_coco_sizes_change_at_32_and_96_pixels_squared():
    assert coco_sizes(np.array([0, 1023.9, 1024, 9215, 9216, 1e6])) == ["small"] * 2 + ["medium"] * 2 + ["large"] * 2
    assert coco_sizes(np.zeros(0)) == []


def test_the_heat_map_baseline_is_what_a_uniform_map_scores_against_either():
    rng = np.random.default_rng(5)
    maps, others = rng.random((6, 5, 7)) ** 4, rng.random((6, 5, 7)) ** 2
    uniform = np.ones_like(maps)
    expected = (attention_iou(maps, uniform) + attention_iou(uniform, others)) / 2
    np.testing.assert_allclose(heat_map_baseline(maps, others), expected, rtol=1e-12)
    others[2] = 0
    assert list(np.isnan(heat_map_baseline(maps, others))) == [False, False, True, False, False, False]
    with pytest.raises(ShapeError, match=r"\(6, 5, 7\).*\(5, 5, 7\)"):
        heat_map_baseline(maps, others[:5])


def test_input_that_does_not_fit_is_named(cases):
    with pytest.raises(ArgumentError, match="class id 2"):
        bias_table(cases, NAMES[:2])
    with pytest.raises(ArgumentError, match="class id -1"):
        pair_table([PairCase("a", 0, -1, 0.5, 0.5)], NAMES)
    with pytest.raises(ArgumentError, match="'tiny'"):
        bias_table([dataclasses.replace(cases[0], size="tiny")], NAMES)
    with pytest.raises(ArgumentError, match="'TN'"):
        bias_table([dataclasses.replace(cases[0], outcome="TN")], NAMES)
    with pytest.raises(ArgumentError, match="itself"):
        co_occurrence_table([PairCase("a", 1, 1, 0.5, 0.5)], NAMES)
