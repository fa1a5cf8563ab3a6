"""A recommendation with what it is about, and its numbers: tables, metrics, `operating_point.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from mlflow_yolo.detection.operating_choice import DEFAULT_IOU
from mlflow_yolo.detection.operating_measures import f_score, share
from mlflow_yolo.studies.thresholds.question import Question
from mlflow_yolo.studies.thresholds.recommendation import CLASSES, COMMON, DEFAULT, DEFAULT_CONF, Recommendation
from mlflow_yolo.studies.thresholds.subject import CHOOSING_SPLIT, Subject

AP_FORMULA = "Ultralytics: 101 points, linear interpolation, trapezoids; 0 where recall ends"
MEASURED = ("f1", "f_beta", "precision", "recall", "cost", "detections")
"""What is told of a point, by the names of `operating_measures.measures`."""


@dataclass(frozen=True, eq=False)
class Result:
    """What came out.

    Attributes:
        subject: The model and its data.
        question: What was asked.
        found: What is recommended.
        masks: Whether masks were judged.
        max_det: Detections an image that counted.
        nms: `by class`, `agnostic`, or `none` for a head that suppresses by itself.
        n_images: Images of the choosing and of the reporting split.
    """

    subject: Subject
    question: Question
    found: Recommendation
    masks: bool
    max_det: int
    nms: str
    n_images: tuple[int, int]

    @property
    def measured_on(self) -> str:
        """The split behind what is reported, and how."""
        if self.subject.is_held_out:
            return self.subject.reporting
        return f"{CHOOSING_SPLIT}, " + (
            "cross-fitted" if self.found.cross is not None else "the image it was chosen on"
        )

    @property
    def conf(self) -> float:
        """The recommended confidence, or that for where only one is possible."""
        return self.found.point[0]

    @property
    def iou(self) -> float:
        """The recommended overlap of suppression."""
        return self.found.point[1]


def operating_point(result: Result) -> dict[str, Any]:
    """Return what `operating_point.json` holds: what serving needs, and where it comes from."""
    subject, question = result.subject, result.question
    per_class = {subject.names[one.class_id]: one.conf for one in result.found.by_class.classes}
    weighing = question.objective.weighing
    weights = {"f_beta": {"beta": weighing.beta}, "cost": {"c_fp": weighing.c_fp, "c_fn": weighing.c_fn}}
    return {
        "conf": result.conf,
        "iou": result.iou,
        "max_det": result.max_det,
        "per_class": per_class if result.found.ships_per_class else {},
        "nms": result.nms,
        "objective": question.objective.word,
        **weights.get(question.objective.measure, {}),
        "judged_by": "masks" if result.masks else "boxes",
        "match_iou": question.match_iou,
        "split": CHOOSING_SPLIT,
        "measured_on": result.measured_on,
        "dataset": subject.dataset.fingerprint,
        "model_sha256": subject.sha256,
        "imgsz": subject.imgsz,
        "ultralytics_version": version("ultralytics"),
        "ap_formula": AP_FORMULA,
    }


def metrics(result: Result) -> dict[str, float]:
    """Return the metrics of the run: the recommended point on the reporting split with its interval, and on val."""
    reported = result.found.reported
    values = {"op/conf": result.conf, "op/iou": result.iou}
    if reported is not None:
        shipped = reported[result.found.shipped]
        for name in MEASURED:
            one = shipped.measured[name]
            values |= {f"op/{name}": one.value, f"op/{name}_low": one.low, f"op/{name}_high": one.high}
        if shipped.change is not None:
            change = shipped.change
            values |= {"op/change": change.value, "op/change_low": change.low, "op/change_high": change.high}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def params(result: Result) -> dict[str, Any]:
    """Return the recommendation as params of the run."""
    return {
        "op/conf": result.conf,
        "op/iou": result.iou,
        "op/max_det": result.max_det,
        "op/per_class": result.found.ships_per_class,
    }


def table(result: Result) -> pd.DataFrame:
    """Return the surface as a table: one row for every confidence and overlap."""
    return pd.DataFrame(result.found.surface.rows())


def class_table(result: Result) -> pd.DataFrame:
    """Return one row a class: its thresholds, and what it scores with each where the point is reported."""
    found, names, classes = result.found, result.subject.names, result.found.by_class.classes
    columns: dict[str, Any] = {
        "class": list(names),
        "n_objects": [one.n_objects for one in classes],
        "conf_common": [found.choice.conf] * len(names),
        "conf_own": [one.own.conf if one.own else np.nan for one in classes],
        "conf": [one.conf for one in classes],
    }
    for point, suffix in ((COMMON, "common"), (CLASSES, "own")):
        counts = found.counts[point]
        tp, seen, objects = (part[0] for part in counts.totals(np.ones((1, counts.tp.shape[0]))))
        columns |= {
            f"precision_{suffix}": np.where(seen > 0, share(tp, seen), np.nan),
            f"recall_{suffix}": np.where(objects > 0, share(tp, objects), np.nan),
            f"f1_{suffix}": np.where(seen + objects > 0, f_score(tp, seen, objects), np.nan),
        }
    return pd.DataFrame(columns)


def point_rows(result: Result) -> list[Mapping[str, Any]]:
    """Return one row a point: default, common, by class; with what it scores where it is reported."""
    reported = result.found.reported or {}
    choice, by_class = result.found.choice, result.found.by_class
    of = {
        DEFAULT: (DEFAULT_CONF, DEFAULT_IOU),
        COMMON: (choice.conf, choice.iou),
        CLASSES: (None, by_class.iou),
    }
    rows: list[Mapping[str, Any]] = []
    for point in (DEFAULT, COMMON, CLASSES):
        if point in reported:
            one, (conf, iou) = reported[point], of[point]
            rows.append({"point": point, "conf": conf, "iou": iou, "measured": one.measured, "change": one.change})
    return rows
