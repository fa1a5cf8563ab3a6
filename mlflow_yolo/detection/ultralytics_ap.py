"""Ultralytics' mAP at many confidences at once.

Its curve of precision over recall, enveloped, is flat between two right detections, at the height of the later one:
where no wrong detection lies between them, the later one's precision is no lower. So the area is a sum over right
detections. A confidence cuts off the end of this sum and so lowers the envelope before it; all confidences are rows of
one array. From where recall ends Ultralytics counts 0.

The definition differs from COCO's (`average_precision`): it interpolates linearly and integrates by trapezoids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.match_arrays import N_THRESHOLDS, MatchArrays, Values

_GRID: Floats = np.linspace(0, 1, 101)
_SHARE = np.where(np.arange(101) > 0, 0.01, 0.005)  # of each point in the area by trapezoids; the last point's is 0
_SHARE_BELOW = np.concatenate([[0.0], np.cumsum(_SHARE)])
_CELLS_AT_ONCE = 4_000_000


def average_precision_surface(arrays: MatchArrays, confs: Sequence[float], *, masks: bool = False) -> Floats:
    """Return mAP50 and mAP50-95 of the detections above each confidence.

    Args:
        arrays: The statistics of a split.
        confs: (K,) confidences.
        masks: Judge by the overlap of masks.

    Returns:
        (K, 2), each in [0, 1]: means over the classes that have objects, 0 where there is none. To rounding what
        Ultralytics' `ap_per_class` gives for `arrays.above(conf)`.

    Source: `ultralytics.utils.metrics.compute_ap` and `ap_per_class` (8.4).
    """
    right = arrays.tp_mask if masks and arrays.tp_mask is not None else arrays.tp
    if _order_matters(arrays, right):
        cut = [(arrays.above(conf), right[arrays.conf > np.float32(conf)]) for conf in confs]
        return np.array([_surface(*one, [-1.0])[0] for one in cut]).reshape(-1, 2)
    return _surface(arrays, right, confs)


def _order_matters(arrays: MatchArrays, right: Bools) -> bool:
    """Return whether detections of one class have the same score and another verdict.

    Ultralytics' sort is not stable: their order depends on how many others there are, so every confidence has its own.
    """
    order = np.lexsort((arrays.conf, arrays.pred_cls))
    conf, pred_cls, right = arrays.conf[order], arrays.pred_cls[order], right[order]
    tied = (conf[1:] == conf[:-1]) & (pred_cls[1:] == pred_cls[:-1])
    return bool((tied & (right[1:] != right[:-1]).any(axis=1)).any())


def _surface(arrays: MatchArrays, right: Bools, confs: Sequence[float]) -> Floats:
    classes, n_objects = np.unique(arrays.target_cls, return_counts=True)
    steps = _steps(arrays, right, classes, n_objects)
    lowest = np.asarray(confs, dtype=np.float32)
    size = max(1, _CELLS_AT_ONCE // (len(steps.conf) + 1))
    blocks = np.split(lowest, range(size, len(lowest), size))
    ap = np.concatenate([steps.areas(block) for block in blocks]) / max(len(classes), 1)
    return np.stack([ap[:, 0], ap.mean(axis=1)], axis=1)


@dataclass(frozen=True, eq=False)
class _Steps:
    """The right detections of all curves, one curve after the other: a curve is a threshold and a class.

    Attributes:
        conf: (T,) scores, falling in a curve.
        curve: (T,) rising index of the curve.
        threshold: (T,) index of its IoU threshold.
        precision: (T,) share of the class's detections that are right, down to this one.
        share: (T,) what this step adds to the area for a height of 1.
    """

    conf: Values
    curve: Ints
    threshold: Ints
    precision: Floats
    share: Floats

    def areas(self, confs: Values) -> Floats:
        """Return the areas below the curves above each confidence (K,), summed over classes: (K, 10) by threshold."""
        heights, height = np.unique(self.precision, return_inverse=True)
        # As whole numbers, so that a running maximum from the right can start anew at every curve.
        base = (self.curve.max(initial=0) - self.curve) * (len(heights) + 1)
        counted = self.conf > confs[:, None]
        highest = np.where(counted, base + height + 1, base)
        highest = np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]
        envelope = np.concatenate([[0.0], heights])[highest - base]
        area = np.where(counted, envelope * self.share, 0.0)
        return np.asarray(area @ (self.threshold[:, None] == np.arange(N_THRESHOLDS)).astype(np.float64))


def _steps(arrays: MatchArrays, right: Bools, classes: Values, n_objects: Ints) -> _Steps:
    """Return the steps of every curve; `classes` (C,) are those with objects, `n_objects` (C,) how many."""
    order = np.argsort(-arrays.conf)  # not stable, as Ultralytics'
    order = order[np.argsort(arrays.pred_cls[order], kind="stable")]
    order = order[np.isin(arrays.pred_cls[order], classes)]
    class_id = np.searchsorted(classes, arrays.pred_cls[order])
    seen = np.arange(1, len(order) + 1) - np.searchsorted(class_id, class_id)
    threshold, row = np.nonzero(right[order].T)
    curve = threshold * len(classes) + class_id[row]
    tp = np.arange(1, len(curve) + 1) - np.searchsorted(curve, curve)
    below, below_before = (np.searchsorted(_GRID, count / n_objects[class_id[row]]) for count in (tp, tp - 1))
    return _Steps(
        conf=arrays.conf[order][row],
        curve=curve,
        threshold=threshold,
        precision=tp / seen[row],
        share=_SHARE_BELOW[below] - _SHARE_BELOW[below_before],
    )
