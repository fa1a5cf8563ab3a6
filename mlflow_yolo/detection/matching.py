"""COCO's greedy matching of detections to ground truth, for all images, classes and IoU thresholds at once.

Within one image and class the detections choose in the order of their scores: each takes the free object that it
overlaps most, if that overlap reaches the threshold. For AP by size, objects outside the size are "ignored": a
detection that can only have an ignored object counts neither as right nor as wrong, and so does an unmatched detection
of another size.

All groups (image, class) take their turn together: step r handles the r-th detection of every group, so the number of
Python steps is that of the fullest group and not of the detections.

Source: COCO API, cocoeval.py, `evaluateImg`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools, Floats, Ints, areas
from mlflow_yolo.detection.pairs import Pairs, overlapping_pairs
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""The ten thresholds of mAP50-95."""

AREAS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)
"""COCO's sizes: least and greatest area, square pixels of the original image; both ends belong to the size."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Every detection with its verdict, sorted by class, then by falling score (ties: image, then order in the image).

    Attributes:
        n_images: Number of images.
        n_classes: Number of classes.
        image: (N,) index of the image.
        class_id: (N,) class.
        score: (N,) confidence.
        tp: (A, N, 10) right, by area range and IoU threshold.
        ignored: (A, N, 10) counts neither as right nor as wrong.
        gt_image: (M,) index of the image of every object.
        gt_class: (M,) its class.
        gt_counted: (A, M) whether the object belongs to the area range.
        area_names: The A area ranges.
    """

    n_images: int
    n_classes: int
    image: Ints
    class_id: Ints
    score: Floats
    tp: Bools
    ignored: Bools
    gt_image: Ints
    gt_class: Ints
    gt_counted: Bools
    area_names: tuple[str, ...]

    def slices(self) -> list[slice]:
        """Return, for each class, where its detections lie."""
        bounds = np.searchsorted(self.class_id, np.arange(self.n_classes + 1))
        return [slice(int(start), int(stop)) for start, stop in pairwise(bounds)]


def match(
    samples: Sequence[Sample], *, n_classes: int, max_det: int, area_ranges: Mapping[str, tuple[float, float]] = AREAS
) -> Matches:
    """Return the verdict on every detection.

    Args:
        samples: The images.
        n_classes: Number of classes.
        max_det: Detections per image and class that count, the highest scoring ones (COCO's maxDets).
        area_ranges: Least and greatest area by name.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    found = _Boxes.of([s.boxes for s in samples], [s.classes for s in samples], n_classes)
    found, score = _ranked(found, np.concatenate([np.zeros(0), *(s.scores for s in samples)]), max_det)
    objects = _Boxes.of([s.gt_boxes for s in samples], [s.gt_classes for s in samples], n_classes)
    objects = objects.take(np.argsort(objects.group, kind="stable"))
    pairs = _pairs(found, objects)

    lows, highs = (np.array(bounds)[:, None] for bounds in zip(*area_ranges.values(), strict=True))
    gt_area, area = areas(objects.boxes), areas(found.boxes)
    gt_counted = (gt_area >= lows) & (gt_area <= highs)
    outside = (area < lows) | (area > highs)
    tp = np.zeros((len(area_ranges), len(area), len(IOU_THRESHOLDS)), dtype=np.bool_)
    ignored = np.repeat(outside[:, :, None], len(IOU_THRESHOLDS), axis=2)
    for counted, right, neither in zip(gt_counted, tp, ignored, strict=True):
        _match_greedily(pairs, counted, found.group, right, neither)

    order = np.lexsort((-score, found.class_id))  # stable: ties keep the order of the images
    return Matches(
        n_images=len(samples),
        n_classes=n_classes,
        image=found.image[order],
        class_id=found.class_id[order],
        score=score[order],
        tp=tp[:, order],
        ignored=ignored[:, order],
        gt_image=objects.image,
        gt_class=objects.class_id,
        gt_counted=gt_counted,
        area_names=tuple(area_ranges),
    )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of all images in flat arrays; `group` numbers the pairs (image, class)."""

    image: Ints
    class_id: Ints
    group: Ints
    boxes: Floats

    @classmethod
    def of(cls, boxes: Sequence[Floats], classes: Sequence[Ints], n_classes: int) -> "_Boxes":
        image = np.repeat(np.arange(len(boxes), dtype=np.int64), [len(b) for b in boxes])
        class_id = np.concatenate([np.zeros(0, dtype=np.int64), *classes]).astype(np.int64)
        if len(class_id) and (class_id.min() < 0 or class_id.max() >= n_classes):
            wrong = class_id[(class_id < 0) | (class_id >= n_classes)][0]
            raise ArgumentError(f"class {wrong} does not exist with n_classes={n_classes}: use 0 to {n_classes - 1}.")
        return cls(image, class_id, image * n_classes + class_id, np.concatenate([np.zeros((0, 4)), *boxes]))

    def take(self, index: npt.NDArray[Any]) -> "_Boxes":
        return _Boxes(self.image[index], self.class_id[index], self.group[index], self.boxes[index])


def _ranked(found: _Boxes, score: Floats, max_det: int) -> tuple[_Boxes, Floats]:
    """Return the detections sorted by group and falling score, at most `max_det` of each group."""
    order = np.lexsort((-score, found.group))
    found = found.take(order)
    rank = np.arange(len(order)) - np.searchsorted(found.group, found.group)
    kept = rank < max_det
    return found.take(kept), score[order[kept]]


def _pairs(found: _Boxes, objects: _Boxes) -> Pairs:
    """Return the pairs that may match; of two objects with the same IoU COCO takes the later one."""
    least = float(IOU_THRESHOLDS[0])
    pairs = overlapping_pairs(found.boxes, found.group, objects.boxes, objects.group, least=least)
    order = np.lexsort((-pairs.object, -pairs.iou, pairs.detection))
    return Pairs(pairs.detection[order], pairs.object[order], pairs.iou[order])


def _match_greedily(pairs: Pairs, counted: Bools, group: Ints, right: Bools, neither: Bools) -> None:
    """Fill `right` and `neither` (N, 10) of one area range; `counted` (M,) marks the objects that belong to it."""
    # An object of the size is preferred to an ignored one, however little the detection overlaps it.
    order = np.lexsort((~counted[pairs.object], pairs.detection))
    detection, gt, overlap = pairs.detection[order], pairs.object[order], pairs.iou[order]
    chooser, first, n_choices = np.unique(detection, return_index=True, return_counts=True)
    turn = np.arange(len(chooser)) - np.searchsorted(group[chooser], group[chooser])
    by_turn = np.argsort(turn, kind="stable")
    free = np.ones((len(counted), len(IOU_THRESHOLDS)), dtype=np.bool_)
    for choosers in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]) if len(turn) else []:
        unmatched = np.ones((len(choosers), len(IOU_THRESHOLDS)), dtype=np.bool_)
        # Only the i-th choice of each is looked at, best first; most detections have but one.
        for choice in range(int(n_choices[choosers].max())):
            has = np.flatnonzero(n_choices[choosers] > choice)
            edge = first[choosers[has]] + choice
            who, what = detection[edge], gt[edge]
            takes = unmatched[has] & free[what] & (overlap[edge, None] >= IOU_THRESHOLDS)
            free[what] &= ~takes
            unmatched[has] &= ~takes
            right[who] |= takes & counted[what, None]
            # A match decides; the size of the detection itself only matters without one.
            neither[who] = np.where(takes, ~counted[what, None], neither[who])
