import dataclasses

import numpy as np
import pytest

from mlflow_yolo.detection.boxes import iou
from mlflow_yolo.detection.confusion import confusion_matrix, normalise
from mlflow_yolo.exceptions import ArgumentError

OBJECT, OTHER, ELSEWHERE = (0, 0, 100, 100), (200, 200, 300, 300), (400, 400, 480, 480)


def test_each_kind_of_outcome_has_its_cell_by_true_and_predicted(one_image):
    objects = [(OBJECT, 0), (OTHER, 1), ((0, 300, 50, 350), 1)]
    detections = [(OBJECT, 0.9, 0), (OTHER, 0.8, 0), (ELSEWHERE, 0.7, 1), ((0, 300, 50, 350), 0.2, 1)]
    matrix = confusion_matrix([one_image(objects, detections)], n_classes=2, conf=0.25)
    # 0 found; a 1 taken for 0; a 1 missed (its detection lies below conf); a 1 seen on background
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 0, 1], [0, 1, 0]])


def test_the_detection_that_overlaps_most_is_matched_whatever_its_class_and_score(one_image):
    detections = [((0, 0, 100, 70), 0.9, 0), ((0, 0, 100, 95), 0.3, 1)]
    matrix = confusion_matrix([one_image([(OBJECT, 0)], detections)], n_classes=2, conf=0.25)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_a_score_or_overlap_on_its_limit_counts(one_image):
    sample = one_image([(OBJECT, 0)], [((0, 0, 100, 50), 0.25, 0)])
    assert confusion_matrix([sample], n_classes=1, conf=0.25, iou=0.5)[0, 0] == 1
    assert confusion_matrix([sample], n_classes=1, conf=0.26, iou=0.5)[0, 0] == 0
    assert confusion_matrix([sample], n_classes=1, conf=0.25, iou=0.51)[0, 0] == 0


def _by_removing_the_best_pair(samples, n_classes, conf):
    matrix = np.zeros((n_classes + 1, n_classes + 1), dtype=int)
    for sample in samples:
        objects = list(zip(sample.gt_boxes, sample.gt_classes, strict=True))
        found = [(b, c) for b, s, c in zip(sample.boxes, sample.scores, sample.classes, strict=True) if s >= conf]
        while objects and found:
            overlap = iou(np.array([b for b, _ in objects]), np.array([b for b, _ in found]))
            g, d = np.unravel_index(overlap.argmax(), overlap.shape)
            if overlap[g, d] < 0.5:
                break
            matrix[objects.pop(g)[1], found.pop(d)[1]] += 1
        for _, class_id in objects:
            matrix[class_id, -1] += 1
        for _, class_id in found:
            matrix[-1, class_id] += 1
    return matrix


def test_matrix_equals_removing_the_best_pair_again_and_again(random_samples):
    samples = random_samples(0, 60, n_objects=10)
    matrix = confusion_matrix(samples, n_classes=3, conf=0.4)
    np.testing.assert_array_equal(matrix, _by_removing_the_best_pair(samples, 3, 0.4))
    assert np.all(matrix[:3, :3].sum(axis=1) > np.diag(matrix)[:3])
    assert matrix[:3].sum() == sum(len(s.gt_classes) for s in samples)
    assert matrix[:, :3].sum() == sum(int(np.sum(s.scores >= 0.4)) for s in samples)


def test_order_of_images_and_scale_do_not_matter(random_samples):
    samples = random_samples(1, 20)
    changed = [dataclasses.replace(s, gt_boxes=s.gt_boxes * 3, boxes=s.boxes * 3) for s in reversed(samples)]
    np.testing.assert_array_equal(
        confusion_matrix(changed, n_classes=3, conf=0.3), confusion_matrix(samples, n_classes=3, conf=0.3)
    )


def test_rows_are_normalised_by_true_class_and_empty_rows_stay_zero():
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(normalise(matrix), [[0.75, 0.25, 0], [0, 0, 0], [0.5, 0.5, 0]])


def test_no_images_give_a_matrix_of_zeros(one_image):
    for samples in ([], [one_image([], [])]):
        np.testing.assert_array_equal(confusion_matrix(samples, n_classes=2, conf=0.3), np.zeros((3, 3)))


def test_a_class_that_does_not_exist_raises_with_the_image(one_image):
    with pytest.raises(ArgumentError, match=r"a\.jpg.* class 2"):
        confusion_matrix([one_image([(OBJECT, 2)], [])], n_classes=2, conf=0.3)
