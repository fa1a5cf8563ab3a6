import numpy as np
import pytest
import torch
import torchvision

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.runtime.nms import CLASS_DISTANCE, non_max_suppression


def run(boxes: list, scores: list, classes: list, **options: object) -> list[int]:
    given = {"iou": 0.5, "max_det": 300, **options}
    arrays = np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(classes, int)
    return non_max_suppression(*arrays, **given).tolist()  # type: ignore[arg-type]


def crowd(seed: int, n: int, n_classes: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes in clusters, in single precision; with `ties` of ten different scores only."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, 640, (12, 2)), rng.uniform(20, 200, (12, 2))
    which = rng.integers(0, 12, n)
    middle, half = centre[which] + rng.normal(0, 8, (n, 2)), size[which] * rng.uniform(0.4, 0.6, (n, 2))
    scores = rng.integers(1, 11, n) / 16 if ties else rng.random(n)
    boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    return boxes, scores.astype(np.float32), rng.integers(0, n_classes, n)


def by_torchvision(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> list[int]:
    moved = torch.from_numpy(boxes) + torch.from_numpy(classes[:, None]).float() * CLASS_DISTANCE
    return torchvision.ops.nms(moved, torch.from_numpy(scores), iou).tolist()


def test_a_box_removes_what_overlaps_it_by_more_than_the_limit() -> None:
    # 0-10 against 0-8: shared 80, union 100; against 0-5: 50 of 100, which is the limit and stays.
    assert run([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5]], [0.9, 0.8, 0.7], [0, 0, 0]) == [0, 2]


def test_a_removed_box_removes_nothing() -> None:
    # The second removes the third, but the first removes the second.
    boxes = [[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]]
    assert run(boxes, [0.9, 0.8, 0.7], [0, 0, 0]) == [0, 2]
    assert run(boxes[1:], [0.8, 0.7], [0, 0]) == [0]


def test_classes_do_not_touch_each_other_unless_told_to() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
    assert run(boxes, [0.5, 0.6], [0, 1]) == [1, 0]
    assert run(boxes, [0.5, 0.6], [0, 1], agnostic=True) == [1]


def test_equal_scores_keep_their_order_across_classes() -> None:
    boxes = [[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]]
    assert run(boxes, [0.5, 0.5, 0.5], [2, 0, 1]) == [0, 1, 2]


def test_no_more_than_max_det_are_kept_and_they_are_the_best() -> None:
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(5)]
    assert run(boxes, [0.1, 0.5, 0.3, 0.9, 0.2], [0, 1, 2, 3, 4], max_det=2) == [3, 1]


def test_nothing_in_is_nothing_out() -> None:
    assert run([], [], []) == []


def test_boxes_without_area_are_all_kept() -> None:
    assert run([[5, 5, 5, 5], [5, 5, 5, 5]], [0.9, 0.8], [0, 0]) == [0, 1]


def test_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        non_max_suppression(np.zeros((2, 4)), np.zeros(1), np.zeros(2), iou=0.5, max_det=1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "n_classes"), [(1, 1), (400, 1), (900, 3), (900, 100)])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
def test_it_keeps_what_torchvision_keeps(n: int, n_classes: int, iou: float, ties: bool) -> None:
    boxes, scores, classes = crowd(n + n_classes, n, n_classes, ties=ties)
    found = non_max_suppression(boxes, scores, classes, iou=iou, max_det=10_000)
    assert found.tolist() == by_torchvision(boxes, scores, classes, iou)


def test_boxes_that_reach_into_the_next_class_are_compared_with_it_as_ultralytics_does() -> None:
    # One class further is 7680 pixels further: this box of class 0 lies on that of class 1.
    boxes = np.array([[7680, 7680, 7780, 7780], [0, 0, 100, 100]], dtype=np.float32)
    scores, classes = np.array([0.9, 0.8], dtype=np.float32), np.array([0, 1])
    assert by_torchvision(boxes, scores, classes, 0.5) == [0]
    assert non_max_suppression(boxes, scores, classes, iou=0.5, max_det=9).tolist() == [0]
