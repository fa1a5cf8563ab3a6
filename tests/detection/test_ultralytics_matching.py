"""All images and thresholds are matched at once as Ultralytics matches them image by image."""

import numpy as np
import pytest
import torch
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import box_iou

from mlflow_yolo.detection.ultralytics_matching import (
    THRESHOLDS,
    Overlaps,
    box_overlaps,
    match_greedily,
    overlaps_of,
)


class Matching(BaseValidator):
    """Ultralytics' matching without the rest of a validator."""

    def __init__(self) -> None:
        self.iouv = torch.linspace(0.5, 0.95, 10)


def some_boxes(rng: np.random.Generator, n: int, *, steps: int) -> np.ndarray:
    """Return (n, 4) boxes xyxy with few possible corners, so that overlaps are often equal."""
    low = rng.integers(0, steps, (n, 2)) * 4.0
    return np.hstack([low, low + rng.integers(1, steps, (n, 2)) * 4.0]).astype(np.float32)


def near(rng: np.random.Generator, boxes: np.ndarray, n: int) -> np.ndarray:
    """Return (n, 4) boxes that are some of the given ones, of which some are moved by up to two pixels."""
    chosen = boxes[rng.integers(0, len(boxes), n)]
    return chosen + rng.integers(-2, 3, (n, 4)).astype(np.float32) * rng.integers(0, 2, (n, 1)).astype(np.float32)


def test_thresholds_are_those_of_torch_to_the_last_bit() -> None:
    assert torch.linspace(0.5, 0.95, 10).numpy().tobytes() == THRESHOLDS.tobytes()


@pytest.mark.parametrize("steps", [4, 8, 30])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_verdicts_are_those_of_ultralytics_in_every_image(steps: int, n_classes: int) -> None:
    rng = np.random.default_rng(steps)
    overlaps, groups, expected, n_found, n_objects = [], [], [], 0, 0
    for image, (n, m) in enumerate([(60, 12), (0, 5), (40, 0), (1, 1), (80, 40)]):
        gt_boxes = some_boxes(rng, m, steps=steps)
        boxes = near(rng, gt_boxes, n) if m else some_boxes(rng, n, steps=steps)
        classes, gt_classes = (rng.integers(0, n_classes, size).astype(np.float32) for size in (n, m))
        pairs = box_overlaps(boxes, classes, gt_boxes, gt_classes)
        overlaps.append(Overlaps(pairs.detection + n_found, pairs.object + n_objects, pairs.iou))
        groups.append(image * n_classes + gt_classes.astype(np.int64))
        ious = box_iou(torch.from_numpy(gt_boxes), torch.from_numpy(boxes))
        right = Matching().match_predictions(torch.from_numpy(classes), torch.from_numpy(gt_classes), ious)
        expected.append(right.numpy() if m else np.zeros((n, 10), np.bool_))
        n_found, n_objects = n_found + n, n_objects + m

    found = match_greedily(Overlaps.joined(overlaps), np.concatenate(groups), n_found)

    assert found.tobytes() == np.concatenate(expected).tobytes()
    assert 20 < found[:, 0].sum() > found[:, 9].sum() > 0


def test_overlaps_are_those_of_ultralytics_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((200, 2)) * 30
    boxes = np.hstack([low, low + 20 + rng.random((200, 2)) * 20]).astype(np.float32)
    one_class = np.zeros(200, np.float32)

    pairs = box_overlaps(boxes, one_class, boxes[::-1].copy(), one_class)

    ious = box_iou(torch.from_numpy(boxes[::-1].copy()), torch.from_numpy(boxes)).numpy().T
    assert pairs.iou.tobytes() == ious[ious >= 0.5].tobytes()
    assert len(pairs.iou) > 1000


def test_a_detection_takes_the_next_best_object_where_the_best_is_taken() -> None:
    # Both overlap object 0 most; from .65 on the second reaches nothing else.
    ious = np.array([[0.9, 0.0], [0.8, 0.62]], np.float32)

    right = match_greedily(overlaps_of(ious), np.zeros(2, np.int64), 2)

    assert right[0].tolist() == [True] * 9 + [False]
    assert right[1].tolist() == [True] * 3 + [False] * 7


def test_of_two_objects_that_are_overlapped_alike_only_one_is_taken() -> None:
    ious = np.full((3, 2), 0.75, np.float32)

    right = match_greedily(overlaps_of(ious), np.zeros(2, np.int64), 3)

    assert right[:, 0].tolist() == [True, True, False]


def test_a_box_of_another_class_overlaps_nothing() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)

    assert len(box_overlaps(box, np.ones(1, np.float32), box, np.zeros(1, np.float32)).iou) == 0
    assert len(box_overlaps(box, np.ones(1, np.float32), box, np.ones(1, np.float32)).iou) == 1


def test_pairs_of_some_detections_are_numbered_anew() -> None:
    pairs = Overlaps(np.array([1, 1, 4, 6]), np.array([0, 2, 1, 2]), np.array([0.5, 0.6, 0.7, 0.8], np.float32))

    some = pairs.of(np.array([1, 3, 6]), 8)

    assert (some.detection.tolist(), some.object.tolist()) == ([0, 0, 2], [0, 2, 2])
    assert some.iou.tolist() == pairs.iou[[0, 1, 3]].tolist()


def test_without_pairs_nothing_is_right() -> None:
    assert not match_greedily(Overlaps.joined([]), np.zeros(0, np.int64), 5).any()
    assert match_greedily(Overlaps.joined([]), np.zeros(3, np.int64), 0).shape == (0, 10)
