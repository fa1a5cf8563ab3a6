"""Targets named by what was found: a stored detection, looked up among the anchors of a later pass."""

from dataclasses import dataclass

from torch import Tensor

from mlflow_yolo.attribution.outputs import DetectionOutputs, Outputs
from mlflow_yolo.attribution.targets import ClassInImage, ClassLogit, Terms
from mlflow_yolo.exceptions import ArgumentError

Box = tuple[float, float, float, float]

_CONF_WEIGHT = 10_000.0
"""A validation fuses the model, which moves confidences by up to 2e-6; boxes that were rotated lie elsewhere."""


@dataclass(frozen=True)
class Detected:
    """A class logit where a detection was made.

    Attributes:
        box: (x1, y1, x2, y2) of the detection, pixels of the input.
        conf: Its confidence.
        class_id: Its class.
        explained: The class whose logit is explained, None for its own.
    """

    box: Box
    conf: float
    class_id: int
    explained: int | None = None

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return one term, in logits."""
        anchor = anchor_of(outputs, image, box=self.box, conf=self.conf, class_id=self.class_id)
        explained = self.class_id if self.explained is None else self.explained
        return ClassLogit(anchor, explained).terms(outputs, image)


@dataclass(frozen=True)
class DetectedClass:
    """The logits of a class at all its detections of an image.

    Attributes:
        class_id: The class.
        found: Box and confidence of each.
        explained: The class whose logits are explained at these places, None for its own.
    """

    class_id: int
    found: tuple[tuple[Box, float], ...]
    explained: int | None = None

    def terms(self, outputs: Outputs, image: int) -> Terms:
        """Return a term for each detection, in logits."""
        anchors = [anchor_of(outputs, image, box=box, conf=conf, class_id=self.class_id) for box, conf in self.found]
        explained = self.class_id if self.explained is None else self.explained
        return ClassInImage(explained, tuple(dict.fromkeys(anchors))).terms(outputs, image)


def anchor_of(outputs: Outputs, image: int, *, box: Box, conf: float, class_id: int) -> int:
    """Return the anchor that a detection came from.

    Args:
        outputs: A pass over the same network input.
        image: Position in the batch.
        box: (x1, y1, x2, y2), pixels of the input, not clipped by more than a few pixels.
        conf: The detection's confidence.
        class_id: Its class.

    Returns:
        The anchor whose probability and box are nearest; confidence counts most, since it is the same up to rounding
        while boxes may have been clipped or, rotated, have been enclosed.
    """
    if not isinstance(outputs, DetectionOutputs):
        raise ArgumentError("a classifier has no anchors: explain the logit of a class.")
    probabilities = outputs.logits[image, class_id].detach().sigmoid()
    wanted = probabilities.new_tensor(box)
    side = float((wanted[2:] - wanted[:2]).abs().sum()) / 2 + 1.0
    apart: Tensor = (outputs.boxes[image].detach() - wanted[:, None]).abs().mean(0) / side
    return int(((probabilities - conf).abs() * _CONF_WEIGHT + apart).argmin())
