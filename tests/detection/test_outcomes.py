import dataclasses

import numpy as np
import pytest

from mlflow_yolo.detection.matching import match
from mlflow_yolo.detection.outcomes import Kind, find_outcomes
from mlflow_yolo.exceptions import ArgumentError

OBJECT = (0, 0, 100, 100)


def _shifted(iou, box=OBJECT):
    """Return the box cut from below so that it overlaps the whole one by `iou`."""
    x1, y1, x2, y2 = box
    return (x1, y1, x2, y1 + (y2 - y1) * iou)


FAR = (300, 300, 400, 400)


@pytest.mark.parametrize(
    ("objects", "detections", "kinds"),
    [
        ([(OBJECT, 0)], [(_shifted(0.5), 0.9, 0)], [Kind.RIGHT]),
        ([(OBJECT, 0)], [(_shifted(0.49), 0.9, 0)], [Kind.LOC]),
        ([(OBJECT, 0)], [(_shifted(0.1), 0.9, 0)], [Kind.LOC]),
        ([(OBJECT, 0)], [(_shifted(0.09), 0.9, 0)], [Kind.BKG]),
        ([(OBJECT, 1)], [(_shifted(0.5), 0.9, 0)], [Kind.CLS]),
        ([(OBJECT, 1)], [(_shifted(0.49), 0.9, 0)], [Kind.BOTH]),
        ([(OBJECT, 1)], [(_shifted(0.1), 0.9, 0)], [Kind.BKG]),
        ([(OBJECT, 0)], [(OBJECT, 0.9, 0), (_shifted(0.6), 0.8, 0)], [Kind.RIGHT, Kind.DUPE]),
        # An overlap of exactly .5 with a taken object is a place that is almost right.
        ([(OBJECT, 0)], [(OBJECT, 0.9, 0), (_shifted(0.5), 0.8, 0)], [Kind.RIGHT, Kind.LOC]),
        # The same place holds an object of another class: the class goes before the duplicate.
        ([(OBJECT, 0), (OBJECT, 1)], [(OBJECT, 0.9, 0), (_shifted(0.6), 0.8, 0)], [Kind.RIGHT, Kind.CLS]),
        # ... and the place before the class.
        ([(_shifted(0.4), 0), (OBJECT, 1)], [(OBJECT, 0.9, 0)], [Kind.LOC]),
        ([], [(OBJECT, 0.9, 0)], [Kind.BKG]),
        ([(OBJECT, 0)], [(FAR, 0.9, 0)], [Kind.BKG]),
    ],
)
def test_kind_of_a_detection_by_its_overlaps(one_image, objects, detections, kinds):
    outcomes = find_outcomes([one_image(objects, detections)], n_classes=2)
    assert outcomes.kind.tolist() == kinds


def test_object_and_overlap_are_those_the_kind_is_about(one_image):
    objects = [(FAR, 1), (OBJECT, 0)]
    detections = [
        (OBJECT, 0.9, 0),
        (_shifted(0.8), 0.8, 0),
        (_shifted(0.3, FAR), 0.7, 0),
        (_shifted(0.7, FAR), 0.6, 0),
        (_shifted(0.4, FAR), 0.5, 1),
        ((200, 0, 210, 10), 0.4, 1),
    ]
    outcomes = find_outcomes([one_image(objects, detections)], n_classes=2)
    assert outcomes.kind.tolist() == [Kind.RIGHT, Kind.DUPE, Kind.BOTH, Kind.CLS, Kind.LOC, Kind.BKG]
    assert outcomes.object.tolist() == [1, 1, 0, 0, 0, -1]
    np.testing.assert_allclose(outcomes.iou, [1, 0.8, 0.3, 0.7, 0.4, 0])
    np.testing.assert_array_equal(outcomes.area, [10000, 8000, 3000, 7000, 4000, 100])
    np.testing.assert_array_equal(outcomes.found, [False, True])
    assert outcomes.rescuer.tolist() == [3, -1]  # of CLS and LOC on the first object the higher score
    assert not outcomes.missed.any()


def test_an_object_with_nothing_or_both_errors_is_missed(one_image):
    objects = [(OBJECT, 0), (FAR, 1)]
    outcomes = find_outcomes([one_image(objects, [(_shifted(0.3), 0.9, 1)])], n_classes=2)
    assert outcomes.kind.tolist() == [Kind.BOTH]
    np.testing.assert_array_equal(outcomes.missed, [True, True])


def test_detections_are_sorted_and_point_back_to_their_rows(one_image):
    samples = [
        one_image([], []),
        one_image([(FAR, 0), (OBJECT, 1)], [(FAR, 0.3, 0), (OBJECT, 0.8, 1), (OBJECT, float("nan"), 1)]),
        one_image([(OBJECT, 0)], [(OBJECT, 0.1, 0), (OBJECT, 0.5, 0), (OBJECT, 0.5, 0)]),
    ]
    outcomes = find_outcomes(samples, n_classes=2)
    assert outcomes.image.tolist() == [1, 1, 2, 2, 2]
    assert outcomes.row.tolist() == [1, 0, 1, 2, 0]
    assert outcomes.gt_row.tolist() == [0, 1, 0]
    assert outcomes.gt_image.tolist() == [1, 1, 2]
    assert outcomes.kind.tolist() == [Kind.RIGHT, Kind.RIGHT, Kind.RIGHT, Kind.DUPE, Kind.DUPE]


def test_conf_and_max_det_leave_out_the_lowest_scores(one_image):
    detections = [(FAR, 0.3, 0), (OBJECT, 0.2, 1), (OBJECT, 0.5, 1)]
    samples = [one_image([], detections), one_image([], detections[:1])]
    assert find_outcomes(samples, n_classes=2, conf=0.3).row.tolist() == [2, 0, 0]
    assert find_outcomes(samples, n_classes=2, max_det=1).row.tolist() == [2, 0]


def test_right_detections_are_those_of_the_matching_for_average_precision(random_samples):
    samples = random_samples(3, 60)
    outcomes, matches = find_outcomes(samples, n_classes=3), match(samples, n_classes=3, max_det=1000)
    right = sorted(zip(outcomes.image, outcomes.conf, outcomes.right, strict=True))
    assert right == sorted(zip(matches.image, matches.score, matches.tp[0, :, 0], strict=True))
    assert outcomes.right.sum() == outcomes.found.sum() > 50


def test_order_of_images_and_scale_do_not_matter(random_samples):
    samples = random_samples(4, 60)
    changed = [dataclasses.replace(s, gt_boxes=s.gt_boxes * 3, boxes=s.boxes * 3) for s in reversed(samples)]
    before, after = (find_outcomes(s, n_classes=3) for s in (samples, changed))
    assert set(before.kind) == set(Kind)
    backwards = sorted(zip(59 - after.image, after.row, after.kind, after.iou.round(9), strict=True))
    assert backwards == sorted(zip(before.image, before.row, before.kind, before.iou.round(9), strict=True))


def test_nothing_at_all_gives_empty_arrays(one_image):
    for samples in ([], [one_image([], [])]):
        outcomes = find_outcomes(samples, n_classes=2)
        assert len(outcomes.kind) == len(outcomes.gt_class) == len(outcomes.missed) == 0


def test_boxes_that_are_nan_overlap_nothing(one_image):
    nan = (float("nan"),) * 4
    outcomes = find_outcomes([one_image([(nan, 0)], [(nan, 0.9, 0), (OBJECT, 0.8, 0)])], n_classes=1)
    assert outcomes.kind.tolist() == [Kind.BKG, Kind.BKG]
    assert outcomes.missed.all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.5, 0.5), (0.6, 0.5), (0.1, 1.1)])
def test_thresholds_out_of_order_raise_with_their_values(one_image, low, high):
    with pytest.raises(ArgumentError, match=f"t_background={low} and t_foreground={high}"):
        find_outcomes([one_image([], [])], n_classes=1, t_background=low, t_foreground=high)


def test_a_class_that_does_not_exist_raises(one_image):
    for sample in (one_image([(OBJECT, 2)], []), one_image([], [(OBJECT, 0.1, 2)])):
        with pytest.raises(ArgumentError, match="class 2"):
            find_outcomes([sample], n_classes=2, conf=0.5)
