"""What a map explains: one number of a model's output, and the anchors it comes from.

A target is a sum of terms. Each term belongs to one anchor and so to one detection level, whose default block shows
it; a target over several levels is explained level by level. Terms are differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mlflow_yolo.attribution.outputs import ClassificationOutputs, DetectionOutputs, Outputs
from mlflow_yolo.exceptions import ArgumentError

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a target.

    Attributes:
        values: (K,) scalars whose sum is explained.
        levels: (K,) the detection level of each, counted from the finest; 0 for a classifier.
    """

    values: Tensor
    levels: Tensor


class Target(Protocol):
    """Anything that picks its terms from the outputs of one image of a batch."""

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return the terms; `image` is the position in the batch."""
        ...


@dataclass(frozen=True)
class ClassLogit:
    """The logit of one class at one anchor: why this detection is of this class.

    Attributes:
        anchor: Index of the anchor.
        class_id: The class.
    """

    anchor: int
    class_id: int

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in logits."""
        return _at(outputs, _logits(outputs, image, self.class_id), [self.anchor])


@dataclass(frozen=True)
class ClassInImage:
    """The logits of one class at all its detections of an image, or at its best anchor where there is none.

    Attributes:
        class_id: The class.
        anchors: Anchors of the detections of this class.
    """

    class_id: int
    anchors: tuple[int, ...] = ()

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return a term for each detection, in logits."""
        logits = _logits(outputs, image, self.class_id)
        return _at(outputs, logits, self.anchors or [int(logits.argmax())])


@dataclass(frozen=True)
class Object:
    """The logit of the true class where an object is: of the anchors in its box, on all levels, the highest.

    For an object that was missed this is the detection that came nearest.

    Attributes:
        box: (x1, y1, x2, y2), pixels of the input.
        class_id: The true class.
    """

    box: tuple[float, float, float, float]
    class_id: int

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in logits."""
        logits = _logits(outputs, image, self.class_id)
        inside = anchors_inside(_detection(outputs), self.box)
        return _at(outputs, logits, [int(inside[logits[inside].argmax()])])


@dataclass(frozen=True)
class Contrast:
    """How much more one class than another is at one anchor: the true class minus the predicted one.

    Attributes:
        anchor: Index of the anchor.
        class_id: The class that counts for.
        against: The class that counts against.
    """

    anchor: int
    class_id: int
    against: int

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, a difference of logits."""
        return _at(outputs, _difference(outputs, image, self.class_id, self.against), [self.anchor])


@dataclass(frozen=True)
class BoxSide:
    """How far one side of a detection's box lies from its anchor: what moves that side outwards.

    Attributes:
        anchor: Index of the anchor.
        side: `left`, `top`, `right` or `bottom`.
    """

    anchor: int
    side: str

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in pixels of the input."""
        if self.side not in SIDES:
            raise ArgumentError(f"side={self.side} does not exist. Use one of {', '.join(SIDES)}.")
        found = _detection(outputs)
        return _at(found, found.distances[image, SIDES.index(self.side)], [self.anchor])


@dataclass(frozen=True)
class PredictedMask:
    """The mean mask logit over the pixels of a detection's own mask: what the mask rests on.

    Attributes:
        anchor: Index of the anchor.
    """

    anchor: int

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in logits; over the whole box where the mask is empty, over the picture without a box."""
        found = _detection(outputs)
        level = found.levels[_checked(found, [self.anchor])]
        logits = found.mask_logits(image, self.anchor)
        box = _pixels_inside(found, found.boxes[image, :, self.anchor].detach(), logits)
        chosen = next(pixels for pixels in (box & (logits > 0), box, torch.ones_like(box)) if bool(pixels.any()))
        return Terms(logits[chosen].mean().reshape(1), level)


@dataclass(frozen=True)
class ImageLogit:
    """The logit of one class of a classifier.

    Attributes:
        class_id: The class.
        against: A class whose logit is subtracted, None for none.
    """

    class_id: int
    against: int | None = None

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in logits."""
        if not isinstance(outputs, ClassificationOutputs):
            raise ArgumentError("a detector has no logit of a whole image: name a detection or a class.")
        if self.against is None:
            value = _logits(outputs, image, self.class_id)
        else:
            value = _difference(outputs, image, self.class_id, self.against)
        return Terms(value.reshape(1), torch.zeros(1, dtype=torch.long, device=value.device))


def anchors_inside(outputs: DetectionOutputs, box: Sequence[float]) -> Tensor:
    """Return the anchors whose cell centre lies in a box, or the nearest one where the box is smaller than a cell.

    Args:
        outputs: The outputs.
        box: (x1, y1, x2, y2), pixels of the input.

    Returns:
        (K,) indices, K >= 1.
    """
    x, y = outputs.centres.T
    x1, y1, x2, y2 = box
    inside: Tensor = ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)).nonzero().flatten()
    if len(inside):
        return inside
    nearest: Tensor = ((x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2).argmin().reshape(1)
    return nearest


def _logits(outputs: Outputs, image: int, class_id: int) -> Tensor:
    """Return the logits of a class in an image: (A,) of a detector, () of a classifier."""
    n_classes = outputs.logits.shape[1]
    if not 0 <= class_id < n_classes:
        raise ArgumentError(f"class {class_id} does not exist: the model has {n_classes}. Use 0 to {n_classes - 1}.")
    return outputs.logits[image, class_id]


def _difference(outputs: Outputs, image: int, class_id: int, against: int) -> Tensor:
    if class_id == against:
        raise ArgumentError(f"class {class_id} against itself is always 0. Name two classes.")
    return _logits(outputs, image, class_id) - _logits(outputs, image, against)


def _detection(outputs: Outputs) -> DetectionOutputs:
    if not isinstance(outputs, DetectionOutputs):
        raise ArgumentError("a classifier has no anchors: explain the logit of a class.")
    return outputs


def _checked(outputs: DetectionOutputs, anchors: Sequence[int]) -> list[int]:
    n_anchors = outputs.logits.shape[2]
    for anchor in anchors:
        if not 0 <= anchor < n_anchors:
            raise ArgumentError(
                f"anchor {anchor} does not exist: this input has {n_anchors}. Use 0 to {n_anchors - 1}."
            )
    return list(anchors)


def _at(outputs: Outputs, values: Tensor, anchors: Sequence[int]) -> Terms:
    """Return the values (A,) at some anchors, each a term."""
    found = _detection(outputs)
    index = _checked(found, anchors)
    return Terms(values[index], found.levels[index])


def _pixels_inside(outputs: DetectionOutputs, box: Tensor, grid: Tensor) -> Tensor:
    """Return which pixels of the mask's grid (H, W) a box cuts out, as Ultralytics cuts masks."""
    height, width = grid.shape
    (rows, columns), stride = outputs.sizes[0], outputs.strides[0]
    x1, y1, x2, y2 = box * box.new_tensor([width / columns, height / rows] * 2) / stride
    x, y = torch.arange(width, device=grid.device), torch.arange(height, device=grid.device)
    inside: Tensor = ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))
    return inside
