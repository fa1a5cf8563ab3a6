"""Which boxes of one list overlap which of another, among those of the same image (or image and class)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Bools, Floats, Ints, paired_iou
from mlflow_yolo.exceptions import ShapeError

_PAIRS_AT_ONCE = 1_000_000
"""Pairs of boxes compared at once: bounds the memory at some 300 MB for crowded images."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Overlapping pairs, sorted by detection, then by falling IoU, then by object.

    Attributes:
        detection: (P,) index of the detection.
        object: (P,) index of the object.
        iou: (P,) their intersection over union.
    """

    detection: Ints
    object: Ints
    iou: Floats

    def only(self, wanted: Bools) -> "Pairs":
        """Return the pairs where `wanted` (P,) is true."""
        return Pairs(self.detection[wanted], self.object[wanted], self.iou[wanted])

    def best(self, n_detections: int) -> tuple[Ints, Floats]:
        """Return the object (N,) that each detection overlaps most and the IoU (N,); -1 and 0 without any."""
        detection, first = np.unique(self.detection, return_index=True)
        best, iou = np.full(n_detections, -1, dtype=np.int64), np.zeros(n_detections)
        best[detection], iou[detection] = self.object[first], self.iou[first]
        return best, iou


def overlapping_pairs(boxes: Floats, group: Ints, gt_boxes: Floats, gt_group: Ints, *, least: float) -> Pairs:
    """Return the pairs of a detection and an object of one group whose IoU is at least `least`.

    Args:
        boxes: (N, 4) xyxy of the detections.
        group: (N,) which of them may meet which objects: the image, say. In any order.
        gt_boxes: (M, 4) xyxy of the objects, same frame.
        gt_group: (M,) their groups, rising.
        least: Lowest IoU, > 0.

    Returns:
        No pairs where one side is empty. A box with a coordinate that is nan overlaps nothing.

    Raises:
        ShapeError: Boxes and groups differ in length, or `gt_group` does not rise.
    """
    if len(boxes) != len(group) or len(gt_boxes) != len(gt_group) or np.any(np.diff(gt_group) < 0):
        raise ShapeError(
            f"{len(boxes)} boxes with {len(group)} groups, {len(gt_boxes)} objects with {len(gt_group)}: "
            "give each its group, the objects' rising."
        )
    parts = list(_parts(boxes, group, gt_boxes, gt_group, least))
    detection = np.concatenate([np.zeros(0, dtype=np.int64), *(part.detection for part in parts)])
    gt = np.concatenate([np.zeros(0, dtype=np.int64), *(part.object for part in parts)])
    overlap = np.concatenate([np.zeros(0), *(part.iou for part in parts)])
    order = np.lexsort((gt, -overlap, detection))
    return Pairs(detection[order], gt[order], overlap[order])


def _parts(boxes: Floats, group: Ints, gt_boxes: Floats, gt_group: Ints, least: float) -> Iterator[Pairs]:
    first = np.searchsorted(gt_group, group, side="left")
    n_pairs = np.searchsorted(gt_group, group, side="right") - first
    before = np.concatenate([[0], np.cumsum(n_pairs)])
    start = 0
    while start < len(n_pairs):
        stop = max(start + 1, int(np.searchsorted(before, before[start] + _PAIRS_AT_ONCE, side="right")) - 1)
        detection = np.repeat(np.arange(start, stop), n_pairs[start:stop])
        gt = np.arange(len(detection)) - (before[detection] - before[start]) + first[detection]
        overlap = paired_iou(boxes[detection], gt_boxes[gt])
        near = overlap >= least
        yield Pairs(detection[near], gt[near], overlap[near])
        start = stop
