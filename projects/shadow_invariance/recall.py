"""How many objects a detector finds, in shadow and in light, counted per image so that images can be resampled.

An object counts as found when, at the given confidence, a detection of its class takes it: detections choose in the
order of their scores, each the free object it overlaps most, if that overlap reaches IoU .5 (COCO's matching, as in
`mlflow_yolo.detection.matching`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from mlflow_yolo.datasets.digits import read_objects
from mlflow_yolo.detection.boxes import Bools, Floats, iou
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import DatasetError

IN_LIGHT = 0.05
"""An object is in light when at most this mean fraction of its box is shadow ..."""

IN_SHADOW = 0.5
"""... and in shadow from here on. Those between lie on a shadow's edge and count among all objects only."""

Counts = Mapping[str, Floats]
"""Counts by name, each (I,) over images or (B,) over resamples."""

_SAME_BOX = 0.9


def found_objects(sample: Sample, *, conf: float, iou_threshold: float = 0.5) -> Bools:
    """Return (M,) which objects of an image are found by its detections with score >= conf."""
    overlap = iou(sample.boxes, sample.gt_boxes)
    overlap[sample.classes[:, None] != sample.gt_classes[None, :]] = 0.0
    found = np.zeros(len(sample.gt_boxes), dtype=np.bool_)
    if not len(found):
        return found
    for detection in np.argsort(-sample.scores, kind="stable"):
        if sample.scores[detection] < conf:
            break
        free = np.where(found, 0.0, overlap[detection])
        best = len(free) - 1 - int(np.argmax(free[::-1]))  # of equal overlaps COCO takes the last
        found[best] |= free[best] >= iou_threshold
    return found


def shadow_fractions(root: Path, split: str, samples: Sequence[Sample]) -> list[Floats] | None:
    """Return, for every image, how much of each object's box lies in shadow, (M,) in [0, 1].

    Args:
        root: The data set's folder. Its `objects/<split>.csv` (see `mlflow_yolo.datasets.digits`) names image, box and
            shadow fraction of every object; without that file the result is None.
        split: The split.
        samples: Its images; files are paired by name without suffix, objects by class and box.

    Raises:
        DatasetError: The table lacks an object, or names one that the labels lack.
    """
    if not (root / "objects" / f"{split}.csv").exists():
        return None
    rows: dict[str, list[tuple[int, tuple[int, int, int, int], float]]] = {}
    for entry in read_objects(root, split):
        rows.setdefault(Path(entry.image).stem, []).append((entry.class_id, entry.box, entry.shadow_fraction))
    fractions = []
    for sample in samples:
        listed = rows.get(Path(sample.image).stem, [])
        overlap = iou(sample.gt_boxes, np.array([box for _, box, _ in listed], dtype=np.float64).reshape(-1, 4))
        overlap[sample.gt_classes[:, None] != np.array([class_id for class_id, _, _ in listed], dtype=int)] = 0.0
        pairs = overlap >= _SAME_BOX
        if len(listed) != len(sample.gt_boxes) or not (pairs.sum(axis=0) == 1).all():
            raise DatasetError(f"{root}/objects/{split}.csv does not list the objects of {sample.image}. Correct it.")
        known = np.array([fraction for _, _, fraction in listed], dtype=np.float64)
        fractions.append(known[pairs.argmax(axis=1)] if listed else known)
    return fractions


def count(samples: Sequence[Sample], *, conf: float, shadows: Sequence[Floats] | None) -> dict[str, Floats]:
    """Return counts per image: detections, objects and found ones, also of those in light and in shadow.

    Args:
        samples: The images.
        conf: The confidence from which detections count.
        shadows: Shadow fraction of every object; None leaves light and shadow out.
    """
    found = [found_objects(sample, conf=conf) for sample in samples]
    counts = {
        "detections": _floats(np.sum(sample.scores >= conf) for sample in samples),
        "objects": _floats(len(each) for each in found),
        "found": _floats(each.sum() for each in found),
    }
    if shadows is not None:
        places = {"light": [s <= IN_LIGHT for s in shadows], "shadow": [s >= IN_SHADOW for s in shadows]}
        for place, members in places.items():
            counts[f"objects in {place}"] = _floats(member.sum() for member in members)
            counts[f"found in {place}"] = _floats((f & m).sum() for f, m in zip(found, members, strict=True))
    return counts


def measures(totals: Counts) -> dict[str, Floats]:
    """Return precision and recalls of summed counts, element by element; nan where there is nothing to divide by."""
    values = {
        "precision": _ratio(totals["found"], totals["detections"]),
        "recall": _ratio(totals["found"], totals["objects"]),
    }
    if "objects in shadow" in totals:
        light = _ratio(totals["found in light"], totals["objects in light"])
        shadow = _ratio(totals["found in shadow"], totals["objects in shadow"])
        values |= {"recall in light": light, "recall in shadow": shadow, "shadow minus light": shadow - light}
    return values


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def _floats(values: Iterable[SupportsFloat]) -> Floats:
    return np.array([float(value) for value in values])
