import dataclasses

import numpy as np
import pytest

from mlflow_yolo.detection.worst_predictions import SUBTYPES, Case, all_cases, cases_of, confused_cases, rank_cases
from mlflow_yolo.exceptions import ArgumentError

OBJECT, OTHER, FAR = (0, 0, 100, 100), (200, 200, 300, 300), (400, 400, 480, 480)


def _cut(box, iou):
    """Return the upper part of the box, which overlaps the whole one by `iou`."""
    x1, y1, x2, y2 = box
    return (x1, y1, x2, y1 + (y2 - y1) * iou)


def _cases(sample, **options):
    return cases_of(all_cases([sample], n_classes=3, **{"conf": 0.25, **options}))


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.8), 0.7, 2)], Case(0, 1, "confusion", 0.7, 0, 0, 2, 0.8, 0.7)),
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.4), 0.7, 1)], Case(0, 1, "localisation", 0.7, 0, 0, None, 0.4, 0.7)),
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.6), 0.7, 1)], Case(0, 1, "localisation", 0.4, 0, 0, None, 0.6, 0.7)),
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.8), 0.7, 1)], Case(0, 1, "low_confidence", 0.3, 0, 0, None, 0.8, 0.7)),
        ([], [(OBJECT, 0.7, 1)], Case(0, 1, "background", 0.7, 0, None, None, 0.0, 0.7)),
        ([(OBJECT, 1)], [], Case(0, 1, "missed", 1.0, None, 0, None, 0.0, 0.0)),
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.6), 0.2, 1)], Case(0, 1, "missed", 0.8, None, 0, None, 0.0, 0.2)),
        ([(OBJECT, 1)], [(_cut(OBJECT, 0.4), 0.2, 1)], Case(0, 1, "missed", 1.0, None, 0, None, 0.0, 0.0)),
        ([(OBJECT, 1)], [(OBJECT, 0.2, 2)], Case(0, 1, "missed", 1.0, None, 0, None, 0.0, 0.0)),
    ],
)
def test_one_detection_or_object_by_hand(one_image, objects, detections, expected):
    (case,) = _cases(one_image(objects, detections))
    assert dataclasses.astuple(case) == pytest.approx(dataclasses.astuple(expected), abs=1e-12)


def test_duplicates_and_both_errors_belong_to_the_class_of_their_object(one_image):
    detections = [(_cut(OBJECT, 0.7), 0.6, 0), (OBJECT, 0.9, 0), (_cut(OTHER, 0.3), 0.8, 2)]
    cases = _cases(one_image([(OBJECT, 0), (OTHER, 1)], detections))
    described = [(c.class_id, c.subtype, c.severity, c.detection, c.object, c.other_class) for c in cases]
    assert described == [
        (0, "duplicate", 0.6, 0, 0, None),
        (0, "low_confidence", pytest.approx(0.1), 1, 0, None),
        (1, "missed", 1.0, None, 1, None),
        (1, "both", 0.8, 2, 1, 2),
    ]


def test_a_missed_object_whose_box_was_taken_by_its_neighbour_has_that_boxs_confidence(one_image):
    # two objects that overlap by 80/120; one box, right for the first and on the second, too
    objects = [(OBJECT, 0), ((0, 20, 100, 120), 0)]
    cases = _cases(one_image(objects, [((0, 5, 100, 105), 0.9, 0)]))
    missed = next(case for case in cases if case.subtype == "missed")
    assert (missed.object, missed.conf, missed.severity) == (1, 0.9, pytest.approx(0.1))


def test_table_is_sorted_by_class_then_wrong_ones_by_severity_and_area(one_image):
    small = (400, 0, 420, 20)
    objects = [(small, 0), (OTHER, 0), (OBJECT, 0)]
    table = all_cases([one_image(objects, [(OBJECT, 0.3, 0), (FAR, 0.4, 0)], "x.jpg")], n_classes=1, conf=0.25)
    assert table["subtype"].tolist() == ["missed", "missed", "background", "low_confidence"]
    assert table["object"].tolist()[:2] == [1, 0]  # the larger first
    assert table["right"].tolist() == [False, False, False, True]
    assert set(table["name"]) == {"x.jpg"}
    assert set(table["subtype"]) <= set(SUBTYPES)


def test_every_detection_at_conf_and_every_missed_object_is_one_case(random_samples):
    samples = random_samples(9, 60)
    table = all_cases(samples, n_classes=3, conf=0.3)
    detections = table[table["detection"].notna()]
    expected = {(i, row) for i, s in enumerate(samples) for row in np.flatnonzero(s.scores >= 0.3)}
    assert len(detections) == len(expected)
    assert set(zip(detections["image"], detections["detection"], strict=True)) == expected
    for case in cases_of(table):
        sample = samples[case.image]
        if case.object is not None:
            assert case.class_id == sample.gt_classes[case.object]
        if case.detection is not None:
            predicted = case.class_id if case.other_class is None else case.other_class
            assert predicted == sample.classes[case.detection]
            assert case.conf == sample.scores[case.detection]
        assert 0 <= case.severity <= 1
    with_object = table[table["object"].notna()]
    assert set(zip(with_object["image"], with_object["object"], strict=True)) == {
        (i, row) for i, s in enumerate(samples) for row in range(len(s.gt_boxes))
    }
    assert set(table["subtype"]) == set(SUBTYPES)


def test_worst_are_wrong_before_right_and_no_case_is_also_best(one_image):
    right = [(OBJECT, 0.3, 0), (OTHER, 0.95, 0)]
    samples = [one_image([(OBJECT, 0), (OTHER, 0)], [*right, (FAR, 0.28, 0)])]
    cases = rank_cases(samples, n_classes=1, conf=0.25, per_class=1)[0]
    assert [case.detection for case in cases.worst] == [2]
    assert [case.detection for case in cases.best] == [1]
    three = rank_cases(samples, n_classes=1, conf=0.25)[0]
    assert [case.detection for case in three.best] == [1, 0]
    assert [case.detection for case in three.worst] == [2]
    two = rank_cases(samples, n_classes=1, conf=0.25, per_class=2)[0]
    assert [case.detection for case in two.best + two.worst] == [1, 0, 2]


def test_best_are_those_of_the_highest_confidence_times_overlap(one_image):
    objects = [(OBJECT, 0), (OTHER, 0), (FAR, 0)]
    detections = [(_cut(OBJECT, 0.6), 0.9, 0), (_cut(OTHER, 0.9), 0.7, 0), (FAR, 0.5, 0)]  # .54, .63, .50
    cases = rank_cases([one_image(objects, detections)], n_classes=1, conf=0.25, per_class=2)[0]
    assert [case.detection for case in cases.best] == [1, 0]
    assert [(case.detection, case.subtype) for case in cases.worst] == [(2, "low_confidence")]


def test_an_object_is_among_the_worst_once(one_image):
    detections = [(_cut(OBJECT, 0.4), 0.9, 0), (_cut(OBJECT, 0.3), 0.8, 0), (FAR, 0.7, 0), (OTHER, 0.6, 0)]
    cases = rank_cases([one_image([(OBJECT, 0)], detections)], n_classes=1, conf=0.25)[0]
    assert [case.detection for case in cases.worst] == [0, 2, 3]


def test_a_class_that_is_never_predicted_or_never_there_has_its_entry(one_image):
    cases = rank_cases([one_image([(OBJECT, 0)], [(FAR, 0.9, 2)])], n_classes=4, conf=0.25)
    assert list(cases) == [0, 1, 2, 3]
    assert [case.subtype for case in cases[0].worst] == ["missed"]
    assert [case.subtype for case in cases[2].worst] == ["background"]
    assert cases[1].worst == cases[1].best == cases[3].worst == ()
    assert all(not of_class.best for of_class in cases.values())


def test_ties_keep_the_order_of_the_images(one_image):
    samples = [one_image([(OBJECT, 0)], [(OBJECT, 0.9, 0), (FAR, 0.5, 0)]) for _ in range(5)]
    cases = rank_cases(samples, n_classes=1, conf=0.25)[0]
    assert [case.image for case in cases.worst] == [case.image for case in cases.best] == [0, 1, 2]


def test_confused_cases_by_pair_the_most_frequent_first_and_the_surest_first(one_image):
    first = one_image([(OBJECT, 0), (OTHER, 1)], [(OBJECT, 0.5, 1), (OTHER, 0.9, 2)])
    second = one_image([(OBJECT, 0)], [(OBJECT, 0.7, 1)])
    pairs = confused_cases([first, second], n_classes=3, conf=0.25)
    assert [(pair, [case.conf for case in cases]) for pair, cases in pairs.items()] == [
        ((0, 1), [0.7, 0.5]),
        ((1, 2), [0.9]),
    ]
    limited = confused_cases([first, second], n_classes=3, conf=0.25, per_pair=1)
    assert [[case.conf for case in cases] for cases in limited.values()] == [[0.7], [0.9]]
    assert confused_cases([first], n_classes=3, conf=0.95) == {}


def test_nothing_gives_no_cases(one_image):
    kinds = all_cases([one_image([(OBJECT, 0)], [(FAR, 0.5, 1)])], n_classes=2, conf=0.3).dtypes
    for samples in ([], [one_image([], [])]):
        table = all_cases(samples, n_classes=2, conf=0.3)
        assert len(table) == 0
        assert table.dtypes[["right", "iou", "object"]].tolist() == kinds[["right", "iou", "object"]].tolist()
        assert rank_cases(samples, n_classes=2, conf=0.3)[1].worst == ()
        assert confused_cases(samples, n_classes=2, conf=0.3) == {}


def test_cases_survive_a_csv(one_image, tmp_path):
    import pandas as pd

    table = all_cases([one_image([(OBJECT, 1)], [(FAR, 0.5, 0)])], n_classes=2, conf=0.25)
    table.to_csv(tmp_path / "cases.csv", index=False)
    again = pd.read_csv(tmp_path / "cases.csv", dtype=table.dtypes.to_dict())
    assert cases_of(again) == cases_of(table)


def test_a_class_that_does_not_exist_raises(one_image):
    with pytest.raises(ArgumentError, match="class 2"):
        rank_cases([one_image([(OBJECT, 2)], [])], n_classes=2, conf=0.3)
