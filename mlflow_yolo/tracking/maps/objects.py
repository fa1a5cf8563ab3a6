"""All labelled objects of an image as one target: one backward pass a level explains them together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlflow_yolo.attribution.outputs import DetectionOutputs, Outputs
from mlflow_yolo.attribution.targets import Terms
from mlflow_yolo.exceptions import ArgumentError


@dataclass(frozen=True, eq=False)
class ClassesAt:
    """The logits of classes at anchors: each object's true class where the model sees it best.

    Attributes:
        anchors: (N,) an anchor for each object.
        classes: (N,) its class.
    """

    anchors: Tensor
    classes: Tensor

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return a term for each object, in logits."""
        assert isinstance(outputs, DetectionOutputs)
        return Terms(outputs.logits[image, self.classes, self.anchors], outputs.levels[self.anchors])


def best_anchors(outputs: Outputs, image: int, boxes: Tensor, classes: Tensor) -> ClassesAt:
    """Return for each object the anchor inside its box, on whatever level, with the highest logit of its class.

    Like `attribution.targets.Object` of each, in one go: nothing waits for the device.

    Args:
        outputs: Of a batch.
        image: Position in the batch.
        boxes: (N, 4) xyxy, pixels of the input; of a box without an anchor inside, the nearest anchor is taken.
        classes: (N,) class ids.

    Raises:
        ArgumentError: A classifier has no anchors.
    """
    if not isinstance(outputs, DetectionOutputs):
        raise ArgumentError("a classifier has no anchors: explain the logit of a class.")
    x, y = outputs.centres.T
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    inside = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    logits = outputs.logits[image].detach()[classes].masked_fill(~inside, -torch.inf)
    distance = (x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2
    return ClassesAt(torch.where(inside.any(1), logits.argmax(1), distance.argmin(1)), classes)
