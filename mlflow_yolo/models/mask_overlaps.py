"""How far the masks of a segmentation model's candidates overlap the objects', computed once for each that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ultralytics.data.utils import polygons2masks_overlap
from ultralytics.utils import ops
from ultralytics.utils.metrics import mask_iou

from mlflow_yolo.detection.boxes import Bools, Ints
from mlflow_yolo.detection.match_arrays import Values
from mlflow_yolo.detection.ultralytics_matching import THRESHOLDS, Overlaps, overlaps_of


@dataclass(frozen=True, eq=False)
class ImageMasks:
    """What one image's masks are made of.

    Attributes:
        prototypes: (P, h, w), or the file that holds them.
        candidates: (R,) rising indices of the image's candidates that could reach an object.
        coefficients: (R, P) theirs.
        boxes: (R, 4) theirs, xyxy, pixels of the model's input.
        classes: (R,) theirs, as they are judged.
        gt_bits: The objects' masks (M, H, W), as packed bits.
        gt_shape: (M, H, W).
        gt_classes: (M,).
        gt_start: Index of the image's first object.
        native: Whether masks are made at the size of the input, as Ultralytics does for COCO, instead of a quarter.
        device: Where they are made.
    """

    prototypes: Values | Path
    candidates: Ints
    coefficients: Values
    boxes: Values
    classes: Values
    gt_bits: npt.NDArray[np.uint8]
    gt_shape: tuple[int, ...]
    gt_classes: Values
    gt_start: int
    native: bool = False
    device: str = "cpu"

    def overlaps(self, places: Ints) -> Overlaps:
        """Return the pairs of .5 or more of some of `candidates`, given by their places."""
        prototypes = np.load(self.prototypes) if isinstance(self.prototypes, Path) else self.prototypes
        tensors = (prototypes, self.coefficients[places], self.boxes[places])
        protos, coefficients, boxes = (torch.from_numpy(one).to(self.device) for one in tensors)
        process = ops.process_mask_native if self.native else ops.process_mask
        masks = process(protos, coefficients, boxes, shape=[4 * side for side in protos.shape[1:]])
        n_bits = int(np.prod(self.gt_shape))
        real = torch.from_numpy(np.unpackbits(self.gt_bits, count=n_bits).reshape(self.gt_shape)).to(self.device)
        ious = mask_iou(real.flatten(1).float(), masks.flatten(1).float()).T.cpu().numpy()
        ious[self.classes[places][:, None] != self.gt_classes] = 0
        found = overlaps_of(ious)
        return Overlaps(self.candidates[places][found.detection], found.object + self.gt_start, found.iou)


@dataclass(eq=False)
class MaskOverlaps:
    """The overlaps of a split's masks as far as they were asked for; it grows with what `compute` is given.

    Attributes:
        images: One per image in which a mask could be right.
        overlaps: Pairs of the candidates computed so far and of objects.
    """

    images: list[ImageMasks] = field(default_factory=list)
    overlaps: Overlaps = field(default_factory=lambda: Overlaps.joined([]))
    _done: list[Bools] = field(default_factory=list)

    def compute(self, rows: Ints) -> None:
        """Add the overlaps of the candidates `rows` (R,), rising, that are not there yet."""
        self._done.extend(np.zeros(len(image.candidates), np.bool_) for image in self.images[len(self._done) :])
        parts = []
        for image, done in zip(self.images, self._done, strict=True):
            places = np.flatnonzero(_within(image.candidates, rows) & ~done)
            if len(places):
                parts.append(image.overlaps(places))
                done[places] = True
        if parts:
            joined = Overlaps.joined([self.overlaps, *parts])
            order = np.argsort(joined.detection, kind="stable")
            self.overlaps = Overlaps(joined.detection[order], joined.object[order], joined.iou[order])


def draw_masks(polygons: Sequence[Values], shape: tuple[int, int]) -> tuple[Bools, Ints]:
    """Return the objects' masks (M, H / 4, W / 4), of which none overlaps another, and the order they are in.

    Args:
        polygons: M outlines (P, 2) xy, pixels of the model's input.
        shape: (height, width) of the model's input.

    Returns:
        The masks from the largest to the smallest, a smaller one before a larger, and the index of each one's polygon.

    Source: `ultralytics.data.utils.polygons2masks_overlap` (8.4), as its data loader calls it.
    """
    if not len(polygons):
        return np.zeros((0, shape[0] // 4, shape[1] // 4), np.bool_), np.zeros(0, np.int64)
    numbered, order = polygons2masks_overlap(shape, list(polygons), downsample_ratio=4)
    return numbered == np.arange(1, len(polygons) + 1)[:, None, None], np.asarray(order, np.int64)


def could_match(boxes: Values, classes: Values, gt_masks: Bools, gt_classes: Values, *, scale: float) -> Bools:
    """Return which candidates (N,) could overlap an object's mask of their class by .5.

    A mask ends at its box, so it shares no more with an object's mask than their two boxes share; half the object's
    mask has to be shared at least.

    Args:
        boxes: (N, 4) xyxy, pixels of the input.
        classes: (N,).
        gt_masks: (M, H, W).
        gt_classes: (M,).
        scale: Pixels of a mask to one of the input.
    """
    possible = np.zeros(len(boxes), dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        low, high = boxes[:, :2] * scale - 1, boxes[:, 2:] * scale + 1  # a pixel more for rounding
    for mask, class_id in zip(gt_masks, gt_classes, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            first, last = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
            shared = np.clip(np.minimum(high, last) - np.maximum(low, first), 0, None).prod(axis=1)
            possible |= (classes == class_id) & (shared >= THRESHOLDS[0] * mask.sum())
    return possible


def _within(some: Ints, rows: Ints) -> Bools:
    """Return which of `some` (N,) are among the rising `rows` (R,)."""
    if not len(rows):
        return np.zeros(len(some), dtype=np.bool_)
    place: Any = np.minimum(np.searchsorted(rows, some), len(rows) - 1)
    return np.asarray(rows[place] == some)
