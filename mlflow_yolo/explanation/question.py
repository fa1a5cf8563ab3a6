"""What the user asked `explain`, checked against the model before any image is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.cam import METHODS, Method, find_method
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.choices import NEED_OBJECTS, OF_CLASSIFIER, OF_DETECTOR
from mlflow_yolo.explanation.detections import Floats, Ints
from mlflow_yolo.explanation.network import ExplainedModel

Class = int | str
Objects = tuple[npt.ArrayLike, Sequence[Class]]
"""What is in an image: boxes (M, 4) xyxy, pixels of the original image, and their M classes, ids or names."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of every image.

    Attributes:
        word: What is explained, `own` for targets of the user's own.
        own: Those, for every image.
        method: How maps are made, None for the task's default.
        blocks: Where they are made, none for each level's default.
        classes: Class ids asked for, None for all.
        boxes: For every image (M, 4) xyxy of its objects, pixels of the original; None where none were given.
        true: For every image (M,) the classes of its objects, of a classifier (1,); None where none were given.
        conf: Least confidence of a detection.
        iou: Overlap of suppression.
        max_det: Most detections an image.
    """

    word: str
    own: tuple[tuple[Target, ...], ...]
    method: Method | None
    blocks: tuple[int, ...]
    classes: tuple[int, ...] | None
    boxes: tuple[Floats, ...] | None
    true: tuple[Ints, ...] | None
    conf: float
    iou: float
    max_det: int

    def method_of_detector(self) -> Method:
        """Return the method: of a comparison of logits one that keeps their unit."""
        return self.method or METHODS["hirescam" if self.word == "contrast" else "layercam"]


def read_question(
    model: ExplainedModel,
    n_images: int,
    *,
    target: str | Sequence[Sequence[Target]],
    method: str | None,
    block: int | Sequence[int] | None,
    classes: Class | Sequence[Class] | None,
    objects: Sequence[Objects] | Sequence[Class] | None,
    conf: float,
    iou: float,
    max_det: int,
) -> Question:
    """Return the arguments of `explain` as they will be used.

    Raises:
        ArgumentError: One that does not exist, does not fit the model, or has not an entry for each image.
    """
    wanted: Any = [classes] if isinstance(classes, int | str) else classes
    ids = None if wanted is None else tuple(dict.fromkeys(model.class_id(name) for name in wanted))
    word = _word(model, target, has_classes=ids is not None) if isinstance(target, str) else "own"
    if word in NEED_OBJECTS and objects is None:
        what = "the true class" if model.task == "classify" else "boxes and classes of what is there"
        raise ArgumentError(f"target={word} needs objects. Pass for each image {what}.")
    for name, given in (("objects", objects), ("target", None if isinstance(target, str) else target)):
        if given is not None and len(given) != n_images:
            raise ArgumentError(f"{name} has {len(given)} entries for {n_images} images. Pass one for each.")
    blocks = () if block is None else (block,) if isinstance(block, int) else tuple(block)
    for index in blocks:
        model.layers.check(index)
    truth = None if objects is None else [_objects(model, one) for one in objects]
    return Question(
        word=word,
        own=() if isinstance(target, str) else tuple(tuple(of_image) for of_image in target),
        method=None if method is None else find_method(method),
        blocks=blocks,
        classes=ids,
        boxes=None if truth is None else tuple(boxes for boxes, _ in truth),
        true=None if truth is None else tuple(true for _, true in truth),
        conf=conf,
        iou=iou,
        max_det=max_det,
    )


def _word(model: ExplainedModel, target: str, *, has_classes: bool) -> str:
    if model.task != "classify":
        known = tuple(OF_DETECTOR)
        word = "detections" if target == "auto" else target
    else:
        known = OF_CLASSIFIER
        word = target if target != "auto" else "classes" if has_classes else "predicted"
    if word not in known:
        raise ArgumentError(f"target={target} is nothing a model for {model.task} has. Use one of {', '.join(known)}.")
    if word == "masks" and model.task != "segment":
        raise ArgumentError(f"target=masks needs a model for segment, this one is for {model.task}. Use detections.")
    if word == "classes" and model.task == "classify" and not has_classes:
        raise ArgumentError("target=classes needs classes for a classifier. Pass ids or names, or use predicted.")
    return word


def _objects(model: ExplainedModel, given: Any) -> tuple[Floats, Ints]:
    """Return boxes and class ids of one image's objects.

    Raises:
        ArgumentError: They are not as many, or no boxes.
    """
    if model.task == "classify":
        return np.zeros((0, 4)), np.array([model.class_id(given)], dtype=np.int64)
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise ArgumentError("objects needs for each image a pair: boxes (M, 4) in pixels and M classes.")
    boxes = np.asarray(given[0], dtype=np.float64).reshape(-1, 4) if len(given[0]) == 0 else np.asarray(given[0], float)
    true = np.array([model.class_id(c if isinstance(c, str) else int(c)) for c in given[1]], dtype=np.int64)
    if boxes.shape != (len(true), 4):
        raise ArgumentError(f"objects has {boxes.shape} boxes for {len(true)} classes. Pass one row (4,) each.")
    return boxes, true
