"""Cases as pictures: cut out around the object, with boxes and maps; words for what happened."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.cam import METHODS
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.detection.worst_predictions import Case
from mlflow_yolo.explanation.batches import Mapper
from mlflow_yolo.explanation.instances import detected, missed
from mlflow_yolo.explanation.split import DetectedSplit
from mlflow_yolo.figures.example import Example, MapLayer, Mark

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]
Region = tuple[int, int, int, int]

CONTRAST = METHODS["hirescam"]
"""How the maps of two classes are made: signed contributions to their logits, which can be subtracted."""
_AROUND = 1.0
"""Context on each side of the boxes, in their own sizes."""
_LEAST_PX = 64


def draw_cases(
    split: DetectedSplit, mapper: Mapper, cases: Sequence[Case], names: Sequence[str]
) -> dict[Case, Example]:
    """Return a picture with maps of every case.

    A detection of another class than its object's has the maps of the true and of the detected class at its anchor, and
    their difference, as signed contributions to the logits on one scale; any other case the map of its class.
    """
    alone = [case for case in cases if case.other_class is None]
    mixed_up = [case for case in cases if case.other_class is not None]
    maps = {
        **_maps(split, mapper, alone, stage="examples"),
        **_maps(split, replace(mapper, method=CONTRAST), mixed_up, stage="examples of confusions"),
    }
    pictures = {index: split.rgb(index) for index in sorted({case.image for case in cases})}
    return {case: _example(case, split, pictures[case.image], maps[case], names) for case in cases}


def _maps(split: DetectedSplit, mapper: Mapper, cases: Sequence[Case], *, stage: str) -> dict[Case, list[Values]]:
    """Return the maps (h, w) of every case."""
    wanted: dict[int, list[Target]] = defaultdict(list)
    places = {}
    for case in cases:
        targets, mine = targets_of(case, split), wanted[case.image]
        places[case] = slice(len(mine), len(mine) + len(targets))
        mine += targets
    made = mapper.maps(wanted, stage=stage)
    return {case: [one.values.numpy() for one in made[case.image][place]] for case, place in places.items()}


def targets_of(case: Case, split: DetectedSplit) -> list[Target]:
    """Return what is explained of a case: one target, or of a confusion that of the true and of the detected class."""
    if case.detection is None:
        assert case.object is not None
        return [missed(split, case.image, case.object)]
    if case.other_class is None:
        return [detected(split, case.image, case.detection)]
    both = (case.class_id, case.other_class)
    return [detected(split, case.image, case.detection, explained=class_id) for class_id in both]


def _example(
    case: Case, split: DetectedSplit, picture: npt.NDArray[np.uint8], maps: Sequence[Values], names: Sequence[str]
) -> Example:
    sample, frame = split.samples[case.image], split.frames[case.image]
    marks = {}
    if case.object is not None:
        marks["true"] = sample.gt_boxes[case.object], names[int(sample.gt_classes[case.object])]
    if case.detection is not None:
        marks["predicted"] = (
            sample.boxes[case.detection],
            f"{names[int(sample.classes[case.detection])]} {case.conf:.0%}",
        )
    boxes = frame.to_input(np.array([box for box, _ in marks.values()]))
    region = crop_region(boxes, frame)
    x1, y1, x2, y2 = region
    cut = Frame((y2 - y1, x2 - x1), frame.input, (1.0, 1.0), (float(y1), float(x1)))
    return Example(
        title=title_of(case, names),
        caption=f"{sample.image}, severity {case.severity:.2f}",
        picture=picture[y1:y2, x1:x2],
        layers=_layers(case, [cut.cut(one) for one in maps], names),
        marks=tuple(
            Mark(_fractions(box, region), label, kind)  # type: ignore[arg-type]
            for box, (kind, (_, label)) in zip(boxes, marks.items(), strict=True)
        ),
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
    first = np.clip(np.floor(centre - half), np.ceil(inside_low), np.floor(inside_high) - 1)
    last = np.clip(np.ceil(centre + half), first + 1, np.maximum(np.floor(inside_high), first + 1))
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


def _layers(case: Case, maps: Sequence[Values], names: Sequence[str]) -> tuple[MapLayer, ...]:
    if case.other_class is None:
        return (MapLayer(f"for {names[case.class_id]}", maps[0]),)
    return difference_layers(*maps, true=names[case.class_id], predicted=names[case.other_class])


def difference_layers(for_true: Values, for_predicted: Values, *, true: str, predicted: str) -> tuple[MapLayer, ...]:
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


def _fractions(box: Floats, region: Region) -> tuple[float, ...]:
    """Return a box of the input in fractions of a region of it."""
    x1, y1, x2, y2 = region
    return tuple(((box - (x1, y1, x1, y1)) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]).tolist())
