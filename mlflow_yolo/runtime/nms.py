"""Greedy non-maximum suppression in NumPy, equal to torchvision's on boxes moved apart by class."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Ints
from mlflow_yolo.exceptions import ShapeError

CLASS_DISTANCE = 7680
"""Pixels by which the boxes of neighbouring classes are moved apart: Ultralytics' own (`max_wh`).

The sum is rounded to single precision, as there: at class 80 to 1/16 pixel, which can decide a close IoU.
"""


def non_max_suppression(
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    classes: npt.NDArray[Any],
    *,
    iou: float,
    max_det: int,
    agnostic: bool = False,
) -> Ints:
    """Return the boxes that remain when each one removes what overlaps it by more than `iou` with a lower score.

    The time is linear in the candidates for each box kept, and only candidates of the same class are looked at: 30,000
    of 80 classes at max_det=300 take a few milliseconds.

    Args:
        boxes: (N, 4) xyxy, pixels.
        scores: (N,); of equal ones the earlier wins.
        classes: (N,) class ids; boxes of different classes do not remove each other.
        iou: Largest overlap of two boxes that are both kept, in [0, 1].
        max_det: Largest number of boxes kept.
        agnostic: Let boxes remove each other whatever their class.

    Returns:
        (M,) indices by falling score, M <= max_det; empty for no boxes.

    Raises:
        ShapeError: The lengths differ or `boxes` is not (N, 4).

    Source: torchvision.ops.nms and `ultralytics.utils.nms.non_max_suppression` (8.4), in single precision as there.
    """
    if boxes.shape != (len(scores), 4) or len(classes) != len(scores):
        raise ShapeError(f"boxes {boxes.shape}, scores {scores.shape}, classes {classes.shape}: one row per box.")
    group = np.zeros(len(scores), np.float32) if agnostic else classes.astype(np.float32)
    moved = boxes.astype(np.float32) + (group * np.float32(CLASS_DISTANCE))[:, None]
    if not agnostic and _reach_over(boxes):
        group = np.zeros_like(group)
    # By class, then by score: the candidates that a box may remove are one slice behind it.
    by_class = np.lexsort((-scores, group))
    rank = np.lexsort((by_class, -scores[by_class]))
    ends = np.searchsorted(group[by_class], group[by_class], side="right")
    return np.asarray(by_class[_greedy(moved[by_class], rank, ends, iou, max_det)], dtype=np.int64)


def _reach_over(boxes: npt.NDArray[Any]) -> bool:
    """Return whether boxes are so large that moving classes apart does not separate them."""
    with np.errstate(invalid="ignore"):
        return len(boxes) > 0 and not np.ptp(boxes, axis=None) < CLASS_DISTANCE


def _greedy(boxes: npt.NDArray[np.float32], rank: Ints, ends: Ints, iou: float, max_det: int) -> Ints:
    """Return which boxes are kept, the best first.

    Args:
        boxes: (N, 4) sorted by class, then by falling score.
        rank: (N,) their positions by falling score.
        ends: (N,) where each one's class ends.
        iou: Largest overlap of two kept ones.
        max_det: Largest number kept.
    """
    low, high = np.ascontiguousarray(boxes[:, :2].T), np.ascontiguousarray(boxes[:, 2:].T)
    area = np.prod(high - low, axis=0)
    alive = np.ones(len(boxes), dtype=np.bool_)
    limit = np.array([iou])  # no scalar: the overlap is compared in double precision, as torchvision does
    kept: list[int] = []
    with np.errstate(invalid="ignore", divide="ignore"):  # two boxes without area: not a number, so no overlap
        for position, end in zip(rank.tolist(), ends[rank].tolist(), strict=True):
            if not alive[position]:
                continue
            kept.append(position)
            if len(kept) >= max_det:
                break
            later = slice(position + 1, end)
            one = slice(position, position + 1)
            size = np.minimum(high[:, one], high[:, later])
            size -= np.maximum(low[:, one], low[:, later])
            np.maximum(size, 0, out=size)
            shared = size[0] * size[1]
            alive[later] &= ~(shared / (area[position] + area[later] - shared) > limit)
    return np.array(kept[:max_det], dtype=np.int64)
