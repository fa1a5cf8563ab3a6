"""Cases as pictures: cut out around the object, with boxes and maps; words for what happened."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.cam import METHODS, Method
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.targets import Object, Target
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.detection.worst_predictions import Case
from mlflow_yolo.explanation.batches import Progress, map_pictures
from mlflow_yolo.explanation.instances import detected, input_box
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.split import DetectedSplit, Picture
from mlflow_yolo.figures.example import Example, MapLayer, Mark

Floats = npt.NDArray[np.float64]
Region = tuple[int, int, int, int]

_AROUND = 1.0
"""Context on each side of the boxes, in their own sizes."""
_LEAST_PX = 64


def draw_cases(
    split: DetectedSplit,
    model: ExplainedModel,
    cases: Iterable[Case],
    names: Sequence[str],
    *,
    method: Method,
    blocks: Sequence[int] = (),
    progress: Progress = lambda n: None,
) -> dict[Case, Example]:
    """Return a picture with maps of every case.

    A confusion has the maps of the true and of the predicted class at the detection's anchor, and their difference, as
    signed contributions to the logits on one scale; any other case the map of its class.
    """
    unique = list(dict.fromkeys(cases))
    frames = {index: split.picture(index).frame for index in sorted({case.image for case in unique})}
    signed = METHODS["hirescam"]
    layers: dict[Case, tuple[npt.NDArray[np.float32], ...]] = {}
    for chosen, made_by in (
        ([case for case in unique if case.subtype != "confusion"], method),
        ([case for case in unique if case.subtype == "confusion"], signed),
    ):
        of_image: dict[int, list[Case]] = defaultdict(list)
        for case in chosen:
            of_image[case.image].append(case)
        wanted: dict[int, list[Target]] = {
            index: [target for case in mine for target in _targets(case, split.samples[index], frames[index])]
            for index, mine in of_image.items()
        }
        maps = map_pictures(model, split.input, wanted, method=made_by, blocks=blocks, progress=progress)
        for index, mine in of_image.items():
            values = iter(made.values.numpy() for made in maps[index])
            for case in mine:
                layers[case] = tuple(next(values) for _ in _targets(case, split.samples[index], frames[index]))
    return {
        case: _example(case, split.samples[case.image], split.picture(case.image), layers[case], names)
        for case in unique
    }


def _targets(case: Case, sample: Sample, frame: Frame) -> list[Target]:
    if case.detection is None:
        assert case.object is not None
        return [Object(input_box(sample.gt_boxes[case.object], frame), case.class_id)]
    if case.subtype == "confusion":
        return [
            detected(sample, case.detection, frame, explained=class_id)
            for class_id in (case.class_id, case.other_class)
        ]
    return [detected(sample, case.detection, frame)]


def _example(
    case: Case, sample: Sample, picture: Picture, maps: Sequence[npt.NDArray[np.float32]], names: Sequence[str]
) -> Example:
    boxes = [
        *([sample.gt_boxes[case.object]] if case.object is not None else []),
        *([sample.boxes[case.detection]] if case.detection is not None else []),
    ]
    region = crop_region(picture.frame.to_input(np.array(boxes)), picture.frame)
    x1, y1, x2, y2 = region
    cut = Frame((y2 - y1, x2 - x1), picture.frame.input, (1.0, 1.0), (float(y1), float(x1)))
    values = [cut.cut(one) for one in maps]
    return Example(
        title=title_of(case, names),
        caption=f"{sample.image}, severity {case.severity:.2f}",
        picture=picture.rgb[y1:y2, x1:x2],
        layers=_layers(case, values, names),
        marks=_marks(case, sample, picture.frame, region, names),
    )


def crop_region(boxes: Floats, frame: Frame) -> Region:
    """Return the part of the input that shows boxes and what is around them, inside the image.

    Args:
        boxes: (N, 4) xyxy, pixels of the input, N >= 1.
        frame: Where the image lies in the input.

    Returns:
        (x1, y1, x2, y2), whole pixels, at least one wide and high.
    """
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    centre, half = (low + high) / 2, np.maximum((high - low) * (0.5 + _AROUND), _LEAST_PX / 2)
    half = np.maximum(half, half.max() / 2)  # no thin strips
    content = frame.to_input(np.array([[0, 0, frame.original[1], frame.original[0]]]))[0]
    inside_low, inside_high = np.maximum(content[:2], 0), np.minimum(content[2:], frame.input[::-1])
    first = np.clip(np.floor(centre - half), inside_low, inside_high - 1)
    last = np.clip(np.ceil(centre + half), first + 1, np.maximum(inside_high, first + 1))
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def title_of(case: Case, names: Sequence[str]) -> str:
    """Return what happened, in a few words."""
    name, conf = names[case.class_id], f"{case.conf:.0%}"
    other = "" if case.other_class is None else names[case.other_class]
    match case.subtype:
        case "confusion":
            return f"{name} taken for {other}, {conf}"
        case "both":
            return f"{other} beside a {name}, {conf}"
        case "duplicate":
            return f"{name} found twice, {conf}"
        case "background":
            return f"{name} where nothing is labelled, {conf}"
        case "missed":
            return f"{name} missed" + (f", its best box has {conf}" if case.conf else "")
        case "localisation":
            return f"{name} badly placed, IoU {case.iou:.2f}, {conf}"
        case _:
            return f"{name} found, {conf}, IoU {case.iou:.2f}"


def _layers(case: Case, values: Sequence[npt.NDArray[np.float32]], names: Sequence[str]) -> tuple[MapLayer, ...]:
    if len(values) == 1:
        return (MapLayer(f"for {names[case.class_id]}", values[0]),)
    assert case.other_class is not None
    return difference_layers(*values, true=names[case.class_id], predicted=names[case.other_class])


def difference_layers(
    for_true: npt.NDArray[np.float32], for_predicted: npt.NDArray[np.float32], *, true: str, predicted: str
) -> tuple[MapLayer, ...]:
    """Return three layers on one scale: what speaks for the true class, for the predicted one, and the difference.

    Args:
        for_true: (h, w) contributions to the logit of the true class, signed.
        for_predicted: The same of the predicted class.
        true: Name of the true class.
        predicted: Name of the predicted class.
    """
    difference = for_true - for_predicted
    limit = float(max(np.abs(values).max() for values in (for_true, for_predicted, difference)))
    return (
        MapLayer(f"for {true}", for_true, signed=True, limit=limit, ends=("against", "for")),
        MapLayer(f"for {predicted}", for_predicted, signed=True, limit=limit, ends=("against", "for")),
        MapLayer(f"{true} \N{MINUS SIGN} {predicted}", difference, signed=True, limit=limit, ends=(predicted, true)),
    )


def _marks(case: Case, sample: Sample, frame: Frame, region: Region, names: Sequence[str]) -> tuple[Mark, ...]:
    marks = []
    if case.object is not None:
        box = sample.gt_boxes[case.object]
        marks.append(Mark(_fractions(box, frame, region), names[int(sample.gt_classes[case.object])], "true"))
    if case.detection is not None:
        label = f"{names[int(sample.classes[case.detection])]} {case.conf:.0%}"
        marks.append(Mark(_fractions(sample.boxes[case.detection], frame, region), label, "predicted"))
    return tuple(marks)


def _fractions(box: Floats, frame: Frame, region: Region) -> tuple[float, ...]:
    x1, y1, x2, y2 = region
    size = np.array([x2 - x1, y2 - y1] * 2)
    return tuple(((frame.to_input(box[None])[0] - (x1, y1, x1, y1)) / size).tolist())
