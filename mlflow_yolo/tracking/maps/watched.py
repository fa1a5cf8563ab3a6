"""The images that are watched, ready for the model: read once, used for every set of maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.tracking.maps.choice import Chosen, Labels, choose_images
from mlflow_yolo.tracking.maps.inputs import Input, is_classification, read_input, read_labels

MOST_OBJECTS = 300
"""Objects of one image that are explained, the largest first; as many as Ultralytics detects in one."""


@dataclass(frozen=True, eq=False)
class Watched:
    """One image and what of it is explained.

    Attributes:
        chosen: Why it is watched.
        input: As the model takes it.
        classes: (N,) classes of the explained objects; of a classifier's image its one class.
        boxes: (N, 4) xyxy of the explained objects, fractions of the picture; (0, 4) for a classifier.
        outlines: Polygons (K, 2) around them, fractions of the picture; empty where there are boxes only.
    """

    chosen: Chosen
    input: Input
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    outlines: tuple[npt.NDArray[Any], ...]

    @property
    def input_boxes(self) -> npt.NDArray[np.float64]:
        """(N, 4) the boxes in pixels of the input."""
        height, width = self.input.frame.original
        return self.input.frame.to_input(self.boxes * [width, height, width, height])


@dataclass(frozen=True, eq=False)
class WatchedSet:
    """All of them.

    Attributes:
        images: In the order of their keys.
        is_classification: Whether each has one class and no boxes.
        names: Class names by id.
    """

    images: tuple[Watched, ...]
    is_classification: bool
    names: Mapping[int, str]


def read_watched(dataset: Any, names: Mapping[int, str]) -> WatchedSet:
    """Choose the images of a validation set that are watched and read them.

    Args:
        dataset: Ultralytics' dataset of a validation.
        names: Class names by id.
    """
    labels = read_labels(dataset)
    images = [_watched(one, labels[one.image], read_input(dataset, one.image)) for one in choose_images(labels, names)]
    return WatchedSet(tuple(images), is_classification(dataset), dict(names))


def _watched(chosen: Chosen, labels: Labels, input: Input) -> Watched:
    wanted = np.arange(len(labels.classes))
    if chosen.class_id is not None:
        wanted = wanted[labels.classes == chosen.class_id]
    if len(labels.boxes):
        sides = labels.boxes[wanted, 2:] - labels.boxes[wanted, :2]
        wanted = wanted[np.argsort(-sides.prod(1), kind="stable")][:MOST_OBJECTS]
    return Watched(
        chosen=chosen,
        input=input,
        classes=labels.classes[wanted],
        boxes=labels.boxes[wanted] if len(labels.boxes) else labels.boxes,
        outlines=tuple(labels.outlines[i] for i in wanted) if labels.outlines else (),
    )
