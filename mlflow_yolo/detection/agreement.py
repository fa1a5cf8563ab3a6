"""How far two models detect the same: a variant against the model that it was made from, without any ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.pairs import Pairs, overlapping_pairs
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError, InputError


@dataclass(frozen=True)
class Agreement:
    """What two models detected on the same images.

    Attributes:
        f1: 2 n_matched / (n_reference + n_other), in [0, 1]; 1 where neither detected anything.
        n_reference: Detections of the reference at the confidence.
        n_other: Detections of the other model.
        n_matched: Pairs of one class that overlap enough, each detection in one pair at most.
    """

    f1: float
    n_reference: int
    n_other: int
    n_matched: int


def agreement(reference: Sequence[Sample], other: Sequence[Sample], *, conf: float, iou: float = 0.5) -> Agreement:
    """Return how far two models agree at a confidence.

    Within an image and class the pairs with the largest overlap are joined first, so that the two models could change
    places.

    Args:
        reference: What one model detected on each image; the ground truth in it is not looked at.
        other: What the other model detected on the same images, in the same order.
        conf: Detections with a lower confidence are left out, in [0, 1].
        iou: Least overlap of a pair, in (0, 1].

    Raises:
        ArgumentError: conf or iou is out of range.
        InputError: The images differ.

    Source: ours; F1 of one set of detections against the other.
    """
    if not 0 <= conf <= 1:
        raise ArgumentError(f"conf={conf:g} is out of range. Use 0 to 1.")
    if not 0 < iou <= 1:
        raise ArgumentError(f"iou={iou:g} is out of range. Use a number above 0, up to 1.")
    _check_images(reference, other)
    n_classes = _n_classes([*reference, *other])
    boxes, group = _detections(other, conf, n_classes)
    kept_boxes, kept_group = _detections(reference, conf, n_classes)
    pairs = overlapping_pairs(boxes, group, kept_boxes, kept_group, least=iou)
    n_matched = _n_joined(pairs, len(boxes), len(kept_boxes))
    n_both = len(boxes) + len(kept_boxes)
    return Agreement(2 * n_matched / n_both if n_both else 1.0, len(kept_boxes), len(boxes), n_matched)


def _n_joined(pairs: Pairs, n_detections: int, n_objects: int) -> int:
    """Return how many pairs are joined when the best overlap chooses first."""
    free: Bools = np.ones(n_detections, dtype=np.bool_)
    wanted: Bools = np.ones(n_objects, dtype=np.bool_)
    for p in np.argsort(-pairs.iou, kind="stable"):
        one, partner = pairs.detection[p], pairs.object[p]
        if free[one] and wanted[partner]:
            free[one] = wanted[partner] = False
    return int(n_detections - free.sum())


def _n_classes(samples: Sequence[Sample]) -> int:
    return 1 + max((int(sample.classes.max()) for sample in samples if len(sample.classes)), default=0)


def _detections(samples: Sequence[Sample], conf: float, n_classes: int) -> tuple[Floats, Ints]:
    """Return boxes (N, 4) of at least this confidence and the number (N,) of image and class of each, rising."""
    boxes, groups = [np.zeros((0, 4))], [np.zeros(0, dtype=np.int64)]
    for index, sample in enumerate(samples):
        kept = np.flatnonzero(sample.scores >= conf)
        kept = kept[np.argsort(sample.classes[kept], kind="stable")]
        boxes.append(sample.boxes[kept])
        groups.append(index * n_classes + sample.classes[kept])
    return np.concatenate(boxes), np.concatenate(groups)


def _check_images(reference: Sequence[Sample], other: Sequence[Sample]) -> None:
    if len(reference) != len(other):
        raise InputError(f"the models saw {len(reference)} and {len(other)} images. Measure both on the same split.")
    differing = next(((a.image, b.image) for a, b in zip(reference, other, strict=True) if a.image != b.image), None)
    if differing:
        raise InputError(f"one model saw {differing[0]!r} where the other saw {differing[1]!r}. Use the same images.")
