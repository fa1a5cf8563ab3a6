import numpy as np
import pytest

from mlflow_yolo.detection import pairs as module
from mlflow_yolo.detection.boxes import iou
from mlflow_yolo.detection.pairs import overlapping_pairs
from mlflow_yolo.exceptions import ShapeError


def _random(seed, n, n_groups):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 60, (n, 2))], axis=1)
    return boxes, rng.integers(0, n_groups, n)


@pytest.mark.parametrize("at_once", [1, 7, 1_000_000])
def test_pairs_are_those_of_all_with_all_in_one_group(monkeypatch, at_once):
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", at_once)
    boxes, group = _random(0, 40, 5)
    gt_boxes, gt_group = _random(1, 15, 7)
    gt_group = np.sort(gt_group)
    overlap = iou(boxes, gt_boxes)
    wanted = (overlap >= 0.2) & (group[:, None] == gt_group)
    expected = sorted((d, -overlap[d, g], g) for d, g in zip(*np.nonzero(wanted), strict=True))
    found = overlapping_pairs(boxes, group, gt_boxes, gt_group, least=0.2)
    assert len(expected) > 10
    assert list(zip(found.detection, -found.iou, found.object, strict=True)) == expected


def test_best_is_the_first_of_equal_overlaps_and_minus_one_without_any():
    box, other = [0.0, 0, 10, 10], [0.0, 0, 10, 8]
    found = overlapping_pairs(
        np.array([box, [50.0, 50, 60, 60]]), np.zeros(2, int), np.array([other, box, box]), np.zeros(3, int), least=0.1
    )
    best, overlap = found.best(2)
    np.testing.assert_array_equal(best, [1, -1])
    np.testing.assert_array_equal(overlap, [1, 0])


def test_no_boxes_no_objects_and_nan_give_no_pairs():
    none, box, nothing = np.zeros((0, 4)), np.array([[0.0, 0, 10, 10]]), np.zeros(0, int)
    for boxes, gt_boxes in [(none, box), (box, none), (none, none), (box * np.nan, box), (box, box * np.nan)]:
        groups = (nothing if not len(b) else np.zeros(1, int) for b in (boxes, gt_boxes))
        group, gt_group = groups
        assert len(overlapping_pairs(boxes, group, gt_boxes, gt_group, least=0.1).iou) == 0


def test_groups_that_do_not_fit_or_do_not_rise_raise():
    box = np.zeros((2, 4))
    with pytest.raises(ShapeError, match="2 boxes with 1 groups"):
        overlapping_pairs(box, np.zeros(1, int), box, np.zeros(2, int), least=0.1)
    with pytest.raises(ShapeError, match="rising"):
        overlapping_pairs(box, np.zeros(2, int), box, np.array([1, 0]), least=0.1)
