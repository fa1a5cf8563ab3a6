"""Average precision, and precision, recall and F1 at the best confidence, of a split's samples: COCO's definition.

Equal to faster-coco-eval (bbox, maxDets 100) on the same boxes. Ultralytics' own AP of the same checkpoint differs: by
up to 1.2e-3 by its formula (it interpolates the curve between its points and integrates), and by one to two points
where its boxes are clipped to the image or its letterbox padding moves the predictions. So the two are never to be
compared with each other; where both are shown, each is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.average_precision import RECALL_POINTS, average_precision, envelope, points_gained
from mlflow_yolo.detection.boxes import Bools, Floats
from mlflow_yolo.detection.matching import AREAS, IOU_THRESHOLDS, Matches, match
from mlflow_yolo.detection.samples import Sample

MAX_DETECTIONS = 100
"""COCO's maxDets: detections per image and class that count."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model scores on a split.

    Means are over the classes that have ground truth; detections of other classes do not count (as in COCO).
    Without any ground truth every score is nan.

    Attributes:
        ap: (C, 10) average precision by class and IoU threshold .50 to .95; nan for a class without ground truth.
        map50: Mean AP at IoU .5.
        map50_95: Mean AP over the ten thresholds.
        ap_small: mAP50-95 of objects up to 32x32 pixels of the original image; None without such an object.
        ap_medium: From 32x32 to 96x96.
        ap_large: From 96x96.
        ap_per_class: (C,) AP50-95; nan for a class without ground truth.
        conf: The confidence from which the mean F1 at IoU .5 is highest (ties: the highest); 0 if nothing is right.
        precision: Mean precision at IoU .5 of detections with score >= conf; a class without any has 0.
        recall: Mean recall there.
        f1: Mean of the classes' F1 there.
        f1_per_class: (C,) F1 there; nan for a class without ground truth.
        pr_curve: (101,) mean precision at IoU .5 at the recalls 0, .01, ... 1, interpolated as for AP.
        n_images: Number of images.
        n_objects: Number of ground truth boxes.
    """

    ap: Floats
    map50: float
    map50_95: float
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ap_per_class: Floats
    conf: float
    precision: float
    recall: float
    f1: float
    f1_per_class: Floats
    pr_curve: Floats
    n_images: int
    n_objects: int


def evaluate(samples: Sequence[Sample], *, n_classes: int, max_det: int = MAX_DETECTIONS) -> Evaluation:
    """Return the scores of a split.

    Args:
        samples: One per image, in any order; images without objects or without detections included.
        n_classes: Number of classes.
        max_det: Detections per image and class that count, the highest scoring ones.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.

    Source: COCO API, cocoeval.py; F1 at its best confidence as in Ultralytics, without smoothing.
    """
    matches = match(samples, n_classes=n_classes, max_det=max_det)
    ap = {name: _ap(matches, area=index) for index, name in enumerate(AREAS)}
    size = {name: None if np.isnan(values).all() else mean_of_present(values) for name, values in ap.items()}
    conf, precision, recall, f1 = _best_f1(matches)
    return Evaluation(
        ap=ap["all"],
        map50=mean_of_present(ap["all"][:, 0]),
        map50_95=mean_of_present(ap["all"]),
        ap_small=size["small"],
        ap_medium=size["medium"],
        ap_large=size["large"],
        ap_per_class=ap["all"].mean(axis=1),
        conf=conf,
        precision=mean_of_present(precision),
        recall=mean_of_present(recall),
        f1=mean_of_present(f1),
        f1_per_class=f1,
        pr_curve=_pr_curve(matches),
        n_images=matches.n_images,
        n_objects=len(matches.gt_class),
    )


def mean_of_present(values: Floats) -> float:
    """Return the mean of the values that are not nan; nan if there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def _n_objects(matches: Matches, area: int) -> Floats:
    """Return the number of objects (C,) of an area range."""
    counted = matches.gt_class[matches.gt_counted[area]]
    return np.bincount(counted, minlength=matches.n_classes).astype(np.float64)


def _counts(right: Bools, ignored: Bools) -> tuple[Floats, Floats]:
    """Return (tp, seen), each (R, 1), at the true positives of one class and threshold."""
    where = np.flatnonzero(right)
    seen = np.cumsum(~ignored)[where]
    return np.arange(1.0, len(where) + 1)[:, None], seen[:, None].astype(np.float64)


def _ap(matches: Matches, *, area: int) -> Floats:
    """Return the average precision (C, 10) of one area range."""
    n_objects = _n_objects(matches, area)
    ap = np.full((matches.n_classes, len(IOU_THRESHOLDS)), np.nan)
    for class_id, where in enumerate(matches.slices()):
        for threshold in range(len(IOU_THRESHOLDS)):
            counts = _counts(matches.tp[area, where, threshold], matches.ignored[area, where, threshold])
            ap[class_id, threshold] = average_precision(*counts, n_objects[class_id : class_id + 1])[0]
    return ap


def _pr_curve(matches: Matches) -> Floats:
    """Return the mean precision (101,) over the classes with ground truth, all sizes, IoU .5."""
    n_objects = _n_objects(matches, 0)
    curves = np.zeros((matches.n_classes, len(RECALL_POINTS)))
    for class_id, where in enumerate(matches.slices()):
        tp, seen = _counts(matches.tp[0, where, 0], matches.ignored[0, where, 0])
        if n_objects[class_id] and len(tp):
            reached = np.repeat(envelope(tp, seen)[:, 0], points_gained(tp, n_objects[[class_id]])[:, 0])
            curves[class_id, : len(reached)] = reached
    if not n_objects.any():
        return np.full(len(RECALL_POINTS), np.nan)
    return np.asarray(curves[n_objects > 0].mean(axis=0))


def _best_f1(matches: Matches) -> tuple[float, Floats, Floats, Floats]:
    """Return the confidence of the highest mean F1, and precision, recall, F1 (C,) there; all sizes, IoU .5."""
    n_objects = _n_objects(matches, 0)
    present = np.flatnonzero(n_objects)
    right = matches.tp[0, :, 0]
    nothing = np.where(n_objects > 0, 0.0, np.nan)
    # Raising the threshold to the next true positive only drops false ones, so no other score can be better.
    candidates = np.unique(matches.score[right])
    if not len(candidates):
        return 0.0, nothing, nothing, nothing
    total = np.zeros(len(candidates))
    slices = matches.slices()
    for class_id in present:
        total += _f1(*_at_least(matches, slices[class_id], candidates), n_objects[class_id])
    # The last of equal maxima; sums of the same numbers may differ in the last bit.
    conf = candidates[np.flatnonzero(total >= total.max() * (1 - 1e-12))[-1]]
    precision, recall, f1 = nothing.copy(), nothing.copy(), nothing.copy()
    for class_id in present:
        tp, seen = _at_least(matches, slices[class_id], np.array([conf]))
        precision[class_id] = tp[0] / max(seen[0], 1.0)
        recall[class_id] = tp[0] / n_objects[class_id]
        f1[class_id] = _f1(tp, seen, n_objects[class_id])[0]
    return float(conf), precision, recall, f1


def _at_least(matches: Matches, where: slice, thresholds: Floats) -> tuple[Floats, Floats]:
    """Return the true positives and the detections of one class with score >= each threshold, each (K,)."""
    seen = np.searchsorted(-matches.score[where], -thresholds, side="right")
    tp = np.concatenate([[0], np.cumsum(matches.tp[0, where, 0])])
    return tp[seen].astype(np.float64), seen.astype(np.float64)


def _f1(tp: Floats, seen: Floats, n_objects: float) -> Floats:
    return np.asarray(2.0 * tp / (seen + n_objects))
