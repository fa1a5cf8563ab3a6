"""Single objects and detections of a split, drawn by lot: what a map is measured on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.attribution.bias import coco_sizes
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.masks import box_mask
from mlflow_yolo.attribution.targets import Object, Target
from mlflow_yolo.detection.worst_predictions import cases_of
from mlflow_yolo.explanation.detected import Box, Detected
from mlflow_yolo.explanation.split import DetectedSplit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Instance:
    """One object or detection whose map is measured.

    Attributes:
        image: Index of its image.
        class_id: The class whose logit is explained: the true one, or the detected one where there is no object.
        outcome: `TP`, `FP` or `FN`.
        detection: Row of the detection in the sample, None for a missed object.
        object: Row of the object, None for a detection of nothing.
        size: `small`, `medium` or `large`, COCO's areas in the original image.
    """

    image: int
    class_id: int
    outcome: str
    detection: int | None
    object: int | None
    size: str


def draw_instances(cases: pd.DataFrame, *, most: int, seed: int = 0) -> list[Instance]:
    """Return at most so many instances of each class and outcome, drawn by lot.

    Args:
        cases: The table of `detection.worst_predictions.all_cases`.
        most: Instances of a class and outcome; 0 for none.
        seed: Of the lot.

    Returns:
        In the order of the images. Right detections, false ones that are not on any object, and missed objects; what
        is on an object of another class belongs to the confused pairs.
    """
    outcome = np.where(cases["right"], "TP", cases["subtype"].map({"missed": "FN", "background": "FP"}).fillna(""))
    table = cases.assign(outcome=outcome)
    table = table[table["outcome"] != ""]
    drawn = table.sample(frac=1, random_state=seed).groupby(["class_id", "outcome"]).head(most).sort_index()
    drawn = drawn.sort_values("image", kind="stable")
    found = zip(cases_of(drawn), drawn["outcome"], coco_sizes(drawn["area"].to_numpy()), strict=True)
    return [
        Instance(case.image, case.class_id, str(outcome), case.detection, case.object, size)
        for case, outcome, size in found
    ]


def target_of(split: DetectedSplit, instance: Instance) -> Target:
    """Return what is explained of an instance: its detection's logit, or that of the best anchor on a missed object."""
    if instance.detection is not None:
        return detected(split, instance.image, instance.detection)
    assert instance.object is not None
    return missed(split, instance.image, instance.object)


def detected(split: DetectedSplit, index: int, row: int, *, explained: int | None = None) -> Detected:
    """Return the logit of a detection, a row of the image's sample, of its own class or of another one."""
    sample = split.samples[index]
    box = input_box(sample.boxes[row], split.frames[index])
    return Detected(box, float(sample.scores[row]), int(sample.classes[row]), explained)


def missed(split: DetectedSplit, index: int, row: int) -> Object:
    """Return the logit of the true class at the best anchor of an object, a row of the image's sample."""
    sample = split.samples[index]
    return Object(input_box(sample.gt_boxes[row], split.frames[index]), int(sample.gt_classes[row]))


def input_box(box: Floats, frame: Frame) -> Box:
    """Return a box (4,) of the original image in pixels of the input."""
    x1, y1, x2, y2 = frame.to_input(box[None])[0].tolist()
    return x1, y1, x2, y2


def instance_mask(split: DetectedSplit, instance: Instance, grid: tuple[int, int]) -> Floats:
    """Return the area of an instance's object, or of its own box where there is no object; see `DetectedSplit.mask`."""
    if instance.object is not None:
        return split.mask(instance.image, [instance.object], grid)
    assert instance.detection is not None
    sample = split.samples[instance.image]
    return box_mask(sample.boxes[[instance.detection]], size=(sample.height, sample.width), grid=grid)
