"""The worst and the best detections of each class at the operating point, worth a look one by one.

Each detection, and each object that was missed, is one case of one subtype:

| subtype | what | severity |
|---|---|---|
| confusion | on an object of another class (TIDE: cls) | its confidence |
| localisation | at an object of its class, overlapping too little (loc) | its confidence |
| duplicate | on an object that a better detection has (dupe) | its confidence |
| background | on nothing (bkg) | its confidence |
| both | of another class than the object that it overlaps, and too little (both) | its confidence |
| missed | an object that nothing found and no correction would find | 1 - its best box's confidence, 1 without a box |
| localisation | right, but 1 - IoU is greater than 1 - confidence | 1 - IoU |
| low_confidence | right, the rest | 1 - confidence |

A case belongs to the class of its object, or where there is none to the class that was detected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.detection.boxes import Bools, Floats, iou
from mlflow_yolo.detection.outcomes import Kind, Outcomes, find_outcomes
from mlflow_yolo.detection.samples import Sample

SUBTYPES = ("confusion", "localisation", "both", "duplicate", "background", "missed", "low_confidence")
"""What a case can be."""

_SUBTYPE_OF = {
    Kind.CLS: "confusion",
    Kind.LOC: "localisation",
    Kind.BOTH: "both",
    Kind.DUPE: "duplicate",
    Kind.BKG: "background",
}


@dataclass(frozen=True)
class Case:
    """One detection or one missed object.

    Attributes:
        image: Index of its sample.
        class_id: The class that it belongs to: the true one where there is an object, else the detected one.
        subtype: One of `SUBTYPES`.
        severity: In [0, 1]; the greater the worse.
        detection: Row of the detection in the sample; None for a missed object.
        object: Row of the object in the sample; None for a detection of background.
        other_class: The class that was detected instead; None where it is the same.
        iou: Overlap of detection and object; 0 without either.
        conf: Confidence of the detection; of a missed object that of the best box of its class on it, also below the
            operating point, 0 without such a box.
    """

    image: int
    class_id: int
    subtype: str
    severity: float
    detection: int | None
    object: int | None
    other_class: int | None
    iou: float
    conf: float


@dataclass(frozen=True)
class ClassCases:
    """Cases of one class.

    Attributes:
        worst: The worst first.
        best: The best first.
    """

    worst: tuple[Case, ...]
    best: tuple[Case, ...]


def all_cases(samples: Sequence[Sample], *, n_classes: int, conf: float) -> pd.DataFrame:
    """Return every case, by class, wrong ones first, the most severe first.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: The operating point: detections below this score are left out.

    Returns:
        Columns: name (of the image), right (whether the detection is), area (of the object, or of the detection where
        there is none, square pixels) and those of `Case`. Ties: the greater area, then the order of the images.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    outcomes = find_outcomes(samples, n_classes=n_classes, conf=conf)
    table = pd.concat([_detected(outcomes), _missed(outcomes, samples)], ignore_index=True)
    names = np.array([sample.image for sample in samples], dtype=np.str_)
    table.insert(0, "name", names[table["image"]])
    by = ["class_id", "right", "severity", "area", "image", "object", "detection"]
    return table.sort_values(by, ascending=[True, True, False, False, True, True, True], ignore_index=True)


def rank_cases(samples: Sequence[Sample], *, n_classes: int, conf: float, per_class: int = 3) -> dict[int, ClassCases]:
    """Return the worst and best cases of each class.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: The operating point.
        per_class: Cases of each sort, at most.

    Returns:
        By class, every class of 0 to n_classes - 1. Best are right detections of the highest confidence x IoU. Worst
        are wrong ones by severity, an object at most once; where they do not suffice, right ones by severity. No case
        is both.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    table = all_cases(samples, n_classes=n_classes, conf=conf)
    quality = (table["conf"] * table["iou"])[table["right"]].sort_values(ascending=False, kind="stable")
    best = table.loc[quality.index].groupby("class_id").head(per_class)
    others = table.drop(index=best.index)
    repeated = others["object"].notna() & others.duplicated(["image", "object"])
    worst = others[~repeated].groupby("class_id").head(per_class)
    return {
        class_id: ClassCases(*(cases_of(part[part["class_id"] == class_id]) for part in (worst, best)))
        for class_id in range(n_classes)
    }


def confused_cases(
    samples: Sequence[Sample], *, n_classes: int, conf: float, per_pair: int | None = None
) -> dict[tuple[int, int], tuple[Case, ...]]:
    """Return the detections of one class on objects of another.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: The operating point.
        per_pair: Cases of a pair, at most, the surest; None for all.

    Returns:
        By (true, detected) class, the pair with the most cases first; each the surest first.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    table = all_cases(samples, n_classes=n_classes, conf=conf)
    pairs: dict[tuple[int, int], list[Case]] = {}
    for case in cases_of(table[table["subtype"] == "confusion"]):
        if case.other_class is not None:
            pairs.setdefault((case.class_id, case.other_class), []).append(case)
    most_first = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
    return {pair: tuple(cases[:per_pair]) for pair, cases in most_first}


def cases_of(table: pd.DataFrame) -> tuple[Case, ...]:
    """Return the rows of `all_cases` as cases, in their order."""
    columns = {name: table[name].tolist() for name in Case.__dataclass_fields__}
    for name in ("detection", "object", "other_class"):
        columns[name] = [None if value is pd.NA else value for value in columns[name]]
    return tuple(Case(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True))


def _detected(outcomes: Outcomes) -> pd.DataFrame:
    right, at_object = outcomes.right, outcomes.object >= 0
    true_class, row, area = outcomes.class_id.copy(), np.full(len(right), -1), outcomes.area.copy()
    of_object = outcomes.object[at_object]
    true_class[at_object], row[at_object] = outcomes.gt_class[of_object], outcomes.gt_row[of_object]
    area[at_object] = outcomes.gt_area[of_object]
    misplaced = right & (outcomes.iou < outcomes.conf)
    names = np.array([_SUBTYPE_OF.get(kind, "low_confidence") for kind in Kind], dtype=object)
    return pd.DataFrame(
        {
            "image": outcomes.image,
            "class_id": true_class,
            "subtype": np.where(misplaced, "localisation", names[outcomes.kind]),
            "severity": np.where(right, 1 - np.minimum(outcomes.iou, outcomes.conf), outcomes.conf),
            "right": right,
            "detection": pd.array(outcomes.row, dtype="Int64"),
            "object": _optional(row, at_object),
            "other_class": _optional(outcomes.class_id, true_class != outcomes.class_id),
            "iou": outcomes.iou,
            "conf": outcomes.conf,
            "area": area,
        }
    )


def _missed(outcomes: Outcomes, samples: Sequence[Sample]) -> pd.DataFrame:
    missed = outcomes.missed
    n, conf = int(missed.sum()), _best_confidences(outcomes, samples)
    nothing = _optional(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_))
    return pd.DataFrame(
        {
            "image": outcomes.gt_image[missed],
            "class_id": outcomes.gt_class[missed],
            "subtype": "missed",
            "severity": 1 - conf,
            "right": np.zeros(n, dtype=np.bool_),
            "detection": nothing,
            "object": pd.array(outcomes.gt_row[missed], dtype="Int64"),
            "other_class": nothing,
            "iou": np.zeros(n),
            "conf": conf,
            "area": outcomes.gt_area[missed],
        }
    )


def _best_confidences(outcomes: Outcomes, samples: Sequence[Sample]) -> Floats:
    """Return, for each missed object, the highest confidence of any box of its class with IoU >= .5, 0 without."""
    image, row = outcomes.gt_image[outcomes.missed], outcomes.gt_row[outcomes.missed]
    parts = [np.zeros(0)]
    for index in np.unique(image):
        sample, rows = samples[index], row[image == index]
        on_it = iou(sample.gt_boxes[rows], sample.boxes) >= 0.5
        on_it &= sample.gt_classes[rows, None] == sample.classes
        parts.append(np.fmax.reduce(np.where(on_it, sample.scores, 0.0), axis=1, initial=0.0))
    return np.concatenate(parts)


def _optional(values: npt.NDArray[Any], given: Bools) -> Any:
    """Return integers (N,) of which those not given are missing."""
    return pd.arrays.IntegerArray(values.astype(np.int64), ~given)
