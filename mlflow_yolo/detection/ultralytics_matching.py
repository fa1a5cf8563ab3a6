"""Ultralytics' matching of detections to objects, for all images and its ten IoU thresholds at once.

In the order of the scores every detection takes the object of its class that it overlaps most among those that are
still free at this threshold, if that overlap reaches the threshold. So a detection's verdict depends on higher scores
only: leaving out the lower ones changes none.

All groups (image, class) take their turn together: step r handles the r-th detection of every group that reaches any
object. Only pairs that overlap by .5 or more matter, and these are few.

Source: `ultralytics.engine.validator.BaseValidator.match_predictions` (8.4); before 8.4 the pairs were sorted by IoU.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools, Ints

Values = npt.NDArray[np.float32]

# In single precision, as Ultralytics' torch.linspace(.5, .95, 10): from either end to the middle.
_STEP = np.float32(0.45) / np.float32(9)
_STEPS = np.arange(5, dtype=np.float32) * _STEP
THRESHOLDS: Values = np.concatenate([np.float32(0.5) + _STEPS, (np.float32(0.95) - _STEPS)[::-1]])
"""(10,) IoU from which a detection counts as right."""

_EPSILON = np.float32(1e-7)


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of a detection and an object of its image and class that overlap by .5 or more.

    Attributes:
        detection: (P,) index of the detection, not falling.
        object: (P,) index of the object; rising for one detection.
        iou: (P,) intersection over union.
    """

    detection: Ints
    object: Ints
    iou: Values

    @classmethod
    def joined(cls, parts: "list[Overlaps]") -> "Overlaps":
        """Return the pairs of several, one after the other; none for an empty list."""
        none = cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        parts = [none, *parts]
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("detection", "object", "iou")))

    def of(self, rows: Ints, n_detections: int) -> "Overlaps":
        """Return the pairs of some of the detections, numbered by their place in `rows`.

        Args:
            rows: (R,) rising indices of detections.
            n_detections: Number of detections that the indices count in.
        """
        place = np.full(n_detections, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        new = place[self.detection]
        kept = new >= 0
        return Overlaps(new[kept], self.object[kept], self.iou[kept])


def box_overlaps(boxes: Values, classes: Values, gt_boxes: Values, gt_classes: Values) -> Overlaps:
    """Return which detections of one image overlap which object of their class by .5 or more.

    Args:
        boxes: (N, 4) xyxy of the detections.
        classes: (N,) their classes.
        gt_boxes: (M, 4) xyxy of the objects, same frame.
        gt_classes: (M,) their classes.

    Source: `ultralytics.utils.metrics.box_iou` (8.4), operation by operation, so that the last digit is the same.
    """
    ious = np.zeros((len(boxes), len(gt_boxes)), dtype=np.float32)
    for index, (box, class_id) in enumerate(zip(gt_boxes, gt_classes, strict=True)):
        same = np.flatnonzero(classes == class_id)
        ious[same, index] = _box_iou(boxes[same], box)
    return overlaps_of(ious)


def overlaps_of(ious: Values) -> Overlaps:
    """Return the pairs of (N, M) overlaps between detections and objects that are .5 or more."""
    detection, target = np.nonzero(ious >= THRESHOLDS[0])
    return Overlaps(detection, target, ious[detection, target])


def match_greedily(overlaps: Overlaps, group: Ints, n_detections: int) -> Bools:
    """Return which detections are right, (N, 10) by threshold.

    Args:
        overlaps: Pairs whose detections are numbered by falling score within each image.
        group: (M,) image and class of every object as one number: objects of different groups have no detection in
            common.
        n_detections: Number N of detections.
    """
    right = np.zeros((n_detections, len(THRESHOLDS)), dtype=np.bool_)
    taken = np.zeros((len(group), len(THRESHOLDS)), dtype=np.bool_)
    turn = _turns(overlaps, group)
    order = np.argsort(turn, kind="stable")
    detection, target, iou = overlaps.detection[order], overlaps.object[order], overlaps.iou[order]
    bounds = np.searchsorted(turn[order], np.arange(turn.max(initial=-1) + 2))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        here = slice(start, end)
        _take(detection[here], target[here], iou[here], right, taken)
    return right


def _take(detection: Ints, target: Ints, iou: Values, right: Bools, taken: Bools) -> None:
    """Let detections of different groups choose; pairs (P,) of one detection lie together, objects rising."""
    first = np.flatnonzero(np.diff(detection, prepend=-1))
    owner = np.cumsum(np.diff(detection, prepend=-1) != 0) - 1
    free = np.where(taken[target], np.float32(0), iou[:, None])
    best = np.maximum.reduceat(free, first, axis=0)
    reached = best >= THRESHOLDS
    right[detection[first]] = reached
    chosen = (free == best[owner]) & reached[owner]
    if len(first) < len(detection):  # of objects that are overlapped alike the first is taken
        count = np.cumsum(chosen, axis=0, dtype=np.int64)
        chosen &= count - (count[first] - chosen[first])[owner] == 1
    taken[target] |= chosen


def _turns(overlaps: Overlaps, group: Ints) -> Ints:
    """Return, for each pair (P,), how many detections of its group choose before its own."""
    starts = np.diff(overlaps.detection, prepend=-1) != 0
    owner = np.cumsum(starts) - 1
    of_detection = group[overlaps.object[starts]]
    order = np.argsort(of_detection, kind="stable")
    ranked = of_detection[order]
    within = np.arange(len(ranked)) - np.searchsorted(ranked, ranked)
    turn = np.zeros(len(ranked), dtype=np.int64)
    turn[order] = within
    return np.asarray(turn[owner])


def _box_iou(boxes: Values, box: Values) -> Values:
    """Return the overlap (N,) of boxes with one object."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    np.maximum(size, 0, out=size)
    shared = size[:, 0] * size[:, 1]
    gt_size, own_size = box[2:] - box[:2], boxes[:, 2:] - boxes[:, :2]
    return np.asarray(shared / (gt_size[0] * gt_size[1] + own_size[:, 0] * own_size[:, 1] - shared + _EPSILON))
