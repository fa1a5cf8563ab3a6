"""What is explained in an image: the user's word turned into targets, each with what is known about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.masks import box_mask, polygon_mask, resize_mask
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.attribution.targets import (
    SIDES,
    BoxSide,
    ClassInImage,
    ClassLogit,
    Contrast,
    ImageLogit,
    Object,
    PredictedMask,
    Target,
)
from mlflow_yolo.detection.outcomes import Kind, find_outcomes
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.explanation.detections import Detections, Floats, Ints

_IN_LOGITS = (ClassLogit, ClassInImage, Object, Contrast, PredictedMask, ImageLogit)


@dataclass(frozen=True, eq=False)
class Region:
    """Where in the network input something is: masks where there are any, else polygons, else boxes.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the input.
        polygons: (N, K, 2) corners, pixels of the input, or None.
        mask: (H, W) of the whole input on any grid, or None.
    """

    boxes: Floats
    polygons: Floats | None = None
    mask: npt.NDArray[np.bool_] | None = None

    def coverage(self, frame: Frame, grid: tuple[int, int]) -> Floats:
        """Return which part of every cell of a map of the original image it covers: (h, w) in [0, 1]."""
        if self.mask is not None:
            return np.clip(resize_mask(frame.cut(self.mask), grid), 0.0, 1.0)
        if self.polygons is not None:
            corners = frame.to_original(self.polygons.reshape(-1, 4)).reshape(self.polygons.shape)
            return polygon_mask(list(corners), size=frame.original, grid=grid)
        return box_mask(frame.to_original(self.boxes), size=frame.original, grid=grid)


@dataclass(frozen=True, eq=False)
class Choice:
    """One target.

    Attributes:
        target: The target.
        words: What it is, readable.
        class_id: The class it is about, None if unknown.
        conf: Confidence of the detection, None where there is no single one.
        region: What a good map would lie on, None if unknown.
        is_detected: Whether the model detected it.
    """

    target: Target
    words: str
    class_id: int | None = None
    conf: float | None = None
    region: Region | None = None
    is_detected: bool = True

    @property
    def box(self) -> Floats | None:
        """(4,) xyxy, pixels of the input, where there is a single one."""
        return None if self.region is None or len(self.region.boxes) != 1 else self.region.boxes[0]

    @property
    def unit(self) -> str:
        """The unit of its score."""
        return (
            "px" if isinstance(self.target, BoxSide) else "logit" if isinstance(self.target, _IN_LOGITS) else "relative"
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """What was found in one image, and what is there.

    Attributes:
        outputs: The outputs of its batch.
        image: Its position in the batch.
        found: Its detections.
        names: Class names.
        classes: Classes the user asked for, None for all.
        boxes: (M, 4) xyxy of the true objects, pixels of the input.
        true: (M,) their classes.
    """

    outputs: DetectionOutputs
    image: int
    found: Detections
    names: tuple[str, ...]
    classes: tuple[int, ...] | None
    boxes: Floats
    true: Ints

    def wants(self, class_id: int) -> bool:
        """Whether the user asked for a class."""
        return self.classes is None or class_id in self.classes

    def label(self, row: int) -> str:
        """Return class and confidence of a detection, readable."""
        return f"{self.names[self.found.classes[row]]} {self.found.conf[row]:.2f}"

    def region(self, rows: Sequence[int]) -> Region:
        """Return where some of the detections are."""
        polygons = None if self.found.polygons is None else self.found.polygons[list(rows)]
        mask = None
        if self.outputs.coefficients is not None:
            masks = [predicted_mask(self.outputs, self.image, self.found, row) for row in rows]
            mask = np.logical_or.reduce(masks) if masks else None
        return Region(self.found.boxes[list(rows)], polygons, mask)

    def wanted(self) -> list[tuple[int, int]]:
        """Return row and anchor of the detections of the classes the user asked for."""
        rows = enumerate(zip(self.found.anchors.tolist(), self.found.classes.tolist(), strict=True))
        return [(row, anchor) for row, (anchor, class_id) in rows if self.wants(class_id)]

    def choice(self, row: int, target: Target, words: str) -> Choice:
        """Return a target about one detection."""
        class_id, conf = int(self.found.classes[row]), float(self.found.conf[row])
        return Choice(target, words, class_id, conf, self.region([row]))


def predicted_mask(outputs: DetectionOutputs, image: int, found: Detections, row: int) -> npt.NDArray[np.bool_]:
    """Return the mask of a detection within its box: (H, W) of the whole input on the prototypes' grid."""
    inside = outputs.mask_logits(image, int(found.anchors[row])).detach().cpu().numpy() > 0
    height, width = (int(cells * outputs.strides[0]) for cells in outputs.sizes[0])
    box = box_mask(found.boxes[row : row + 1], size=(height, width), grid=inside.shape)
    return np.asarray(inside & (box >= 0.5))


def detections(scene: Scene) -> list[Choice]:
    """Return the class logit of every detection."""
    return [
        scene.choice(row, ClassLogit(anchor, int(scene.found.classes[row])), scene.label(row))
        for row, anchor in scene.wanted()
    ]


def classes(scene: Scene) -> list[Choice]:
    """Return one target for every class found, and for those asked for and not found their best anchor."""
    choices = []
    for class_id in scene.classes if scene.classes is not None else sorted({int(c) for c in scene.found.classes}):
        rows = np.flatnonzero(scene.found.classes == class_id).tolist()
        anchors = tuple(dict.fromkeys(int(scene.found.anchors[row]) for row in rows))
        count = f"{len(rows)} detection{'s' * (len(rows) != 1)}" if rows else "not detected: its best anchor"
        words = f"{scene.names[class_id]}, {count}"
        conf = float(scene.found.conf[rows[0]]) if len(rows) == 1 else None
        region = scene.region(rows) if rows else None
        choices.append(Choice(ClassInImage(class_id, anchors), words, class_id, conf, region, is_detected=bool(rows)))
    return choices


def box_sides(scene: Scene) -> list[Choice]:
    """Return the four sides of every detection's box."""
    return [
        scene.choice(row, BoxSide(anchor, side), f"{side} side of {scene.label(row)}")
        for row, anchor in scene.wanted()
        for side in SIDES
    ]


def predicted_masks(scene: Scene) -> list[Choice]:
    """Return the mask of every detection."""
    return [scene.choice(row, PredictedMask(anchor), f"mask of {scene.label(row)}") for row, anchor in scene.wanted()]


def contrasts(scene: Scene) -> list[Choice]:
    """Return the true class, the predicted one and their difference for every object taken for another class."""
    outcomes = find_outcomes([_sample(scene)], n_classes=len(scene.names))
    choices = []
    for at in np.flatnonzero(outcomes.kind == Kind.CLS):
        row, thing = int(outcomes.row[at]), int(outcomes.gt_row[outcomes.object[at]])
        true, predicted, anchor = (
            int(x) for x in (scene.true[thing], scene.found.classes[row], scene.found.anchors[row])
        )
        if not scene.wants(true):
            continue
        region, conf = Region(scene.boxes[thing : thing + 1]), float(scene.found.conf[row])
        at_place = f"where {scene.names[true]} was taken for {scene.label(row)}"
        for target, words, class_id in (
            (ClassLogit(anchor, true), scene.names[true], true),
            (ClassLogit(anchor, predicted), scene.names[predicted], predicted),
            (Contrast(anchor, true, predicted), f"{scene.names[true]} minus {scene.names[predicted]}", true),
        ):
            choices.append(Choice(target, f"{words} {at_place}", class_id, conf, region))
    return choices


def missed(scene: Scene) -> list[Choice]:
    """Return the true class's best anchor of every object that nothing found and no correction would find."""
    outcomes = find_outcomes([_sample(scene)], n_classes=len(scene.names))
    choices = []
    for thing in outcomes.gt_row[outcomes.missed].tolist():
        true, box = int(scene.true[thing]), scene.boxes[thing]
        if scene.wants(true):
            target = Object((float(box[0]), float(box[1]), float(box[2]), float(box[3])), true)
            words = f"missed {scene.names[true]}: the best anchor in it"
            choices.append(Choice(target, words, true, None, Region(box[None]), is_detected=False))
    return choices


def of_user(target: Any) -> Choice:
    """Return a target of the user's own."""
    return Choice(target, repr(target), getattr(target, "class_id", None))


OF_DETECTOR: Mapping[str, Callable[[Scene], list[Choice]]] = MappingProxyType(
    {
        "detections": detections,
        "classes": classes,
        "boxes": box_sides,
        "masks": predicted_masks,
        "contrast": contrasts,
        "missed": missed,
    }
)
"""What a detector is asked, by the user's word."""

NEED_OBJECTS = ("contrast", "missed")
"""Words that need the true objects."""

OF_CLASSIFIER = ("predicted", "classes", "contrast")
"""Words for a classifier; `contrast` needs the true classes."""


def of_classifier(
    word: str, probabilities: Floats, names: tuple[str, ...], wanted: Sequence[int] | None, true: int | None
) -> list[Choice]:
    """Return the targets of one image of a classifier.

    Args:
        word: One of `OF_CLASSIFIER`.
        probabilities: (C,) of the image.
        names: Class names.
        wanted: Classes asked for, with `classes`.
        true: The true class, with `contrast`; no targets where it was predicted.
    """
    predicted = int(probabilities.argmax())

    def choice(class_id: int, against: int | None = None) -> Choice:
        words = f"{names[class_id]} {probabilities[class_id]:.2f}"
        words += "" if against is None else f" minus {names[against]} {probabilities[against]:.2f}"
        return Choice(ImageLogit(class_id, against), words, class_id, float(probabilities[class_id]))

    if word == "predicted":
        return [choice(predicted)]
    if word == "classes":
        return [choice(class_id) for class_id in wanted or ()]
    if true is None or true == predicted:
        return []
    return [choice(true), choice(predicted), choice(true, predicted)]


def _sample(scene: Scene) -> Sample:
    """Return what outcomes are found in; of rotated boxes those that enclose them."""
    found = scene.found
    return Sample("", 0, 0, scene.boxes, scene.true, found.boxes, found.conf, found.classes)
