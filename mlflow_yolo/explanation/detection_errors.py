"""What a detector got wrong on a split, from its stored predictions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_yolo.classification.calibration import ConfidenceSummary, summarise
from mlflow_yolo.classification.categories import Categories, CategoryErrors, category_errors
from mlflow_yolo.classification.confused_pairs import confused_pairs
from mlflow_yolo.classification.confusion import cluster_order
from mlflow_yolo.detection.boxes import Ints
from mlflow_yolo.detection.calibration import (
    CalibrationError,
    calibration_error,
    confidence_histogram,
    high_confidence_errors,
)
from mlflow_yolo.detection.class_table import class_table
from mlflow_yolo.detection.confusion import confusion_matrix
from mlflow_yolo.detection.error_types import ErrorTypes, error_types
from mlflow_yolo.detection.operating_point import operating_confidence
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.detection.worst_predictions import all_cases
from mlflow_yolo.figures.class_bars import class_bars
from mlflow_yolo.figures.confidence_histogram import confidence_histogram as draw_histogram
from mlflow_yolo.figures.confused_pairs_chart import confused_pairs_chart
from mlflow_yolo.figures.confusion_matrix import confusion_matrix as draw_matrix
from mlflow_yolo.figures.error_types_chart import error_types_chart
from mlflow_yolo.figures.reliability import reliability_diagram
from mlflow_yolo.figures.style import Figure

MOST_IN_ORDER = 40
"""Classes up to which a confusion matrix keeps their own order."""
CONFIDENT = 0.9
_N_BINS = 25
"""Of every calibration error of a detector, as in D-ECE."""


@dataclass(frozen=True, eq=False)
class DetectionErrors:
    """The errors of a split.

    Attributes:
        split: Its name.
        names: Class names.
        conf: The operating point.
        classes: See `detection.class_table`.
        matrix: (C+1, C+1) counts [true, predicted], background last.
        order: Classes in the order in which the matrix is drawn, None for their own.
        pairs: See `classification.confused_pairs`, with the background.
        cases: See `detection.worst_predictions.all_cases`.
        types: TIDE's error types among all detections, which AP is made of.
        counts: Errors of each type at the operating point.
        calibration: D-ECE and LaECE at the operating point.
        confidence: Confidence against being right, at the operating point.
        confident: The cases that are wrong with a confidence above 0.9, the surest first, whatever the operating point.
        categories: Errors within and across categories, None without categories.
    """

    split: str
    names: tuple[str, ...]
    conf: float
    classes: pd.DataFrame
    matrix: Ints
    order: Ints | None
    pairs: pd.DataFrame
    cases: pd.DataFrame
    types: ErrorTypes
    counts: Mapping[str, int]
    calibration: CalibrationError
    confidence: ConfidenceSummary
    confident: pd.DataFrame
    categories: CategoryErrors | None


def find_errors(
    samples: Sequence[Sample],
    names: Sequence[str],
    *,
    split: str,
    conf: float | None = None,
    groups: Categories | None = None,
) -> DetectionErrors:
    """Return the errors of a split.

    Args:
        samples: Its ground truth and predictions.
        names: Class names.
        split: Its name.
        conf: Operating point, None for the confidence with the best mean F1.
        groups: Categories of the classes.
    """
    n_classes = len(names)
    at = operating_confidence(samples, n_classes=n_classes) if conf is None else conf
    matrix = confusion_matrix(samples, n_classes=n_classes, conf=at)
    cases = all_cases(samples, n_classes=n_classes, conf=at)
    found = cases[cases["detection"].notna()]
    return DetectionErrors(
        split=split,
        names=tuple(names),
        conf=at,
        classes=class_table(samples, names=names, conf=at),
        matrix=matrix,
        order=cluster_order(matrix[:-1, :-1]) if n_classes > MOST_IN_ORDER else None,
        pairs=confused_pairs(matrix, names, background=True),
        cases=_named(cases, names),
        types=error_types(samples, n_classes=n_classes),
        counts=error_types(samples, n_classes=n_classes, conf=at).totals,
        calibration=calibration_error(samples, n_classes=n_classes, conf=at, n_bins=_N_BINS),
        confidence=summarise(
            found["conf"].to_numpy(), found["right"].to_numpy(dtype=bool), n_bins=_N_BINS, above=CONFIDENT
        ),
        confident=_named(high_confidence_errors(samples, n_classes=n_classes, above=CONFIDENT), names),
        categories=category_errors(matrix[:-1, :-1], groups) if groups else None,
    )


def calibration_table(errors: DetectionErrors) -> pd.DataFrame:
    """Return D-ECE and LaECE of every class and of all, nan without detections.

    Returns:
        Columns `class` (the last row is `all`), `n` (detections at the operating point), `d_ece`, `la_ece`.
    """
    found = errors.calibration
    return pd.DataFrame(
        {
            "class": [*errors.names, "all"],
            "n": [*found.n_per_class.tolist(), int(found.n_per_class.sum())],
            "d_ece": [*found.d_ece_per_class.tolist(), found.d_ece],
            "la_ece": [*found.la_ece_per_class.tolist(), found.la_ece],
        }
    )


def error_tables(errors: DetectionErrors) -> dict[str, pd.DataFrame]:
    """Return the tables that are kept, by file name."""
    sides = [*errors.names, "background"]
    types, bins = errors.types, errors.calibration.reliability
    per_type = pd.DataFrame(
        {"delta_ap50": types.delta_ap, "errors_at_conf": pd.Series(errors.counts, dtype="Int64")}
    ).rename_axis("type")
    tables = {
        "per_class": errors.classes,
        "confusion_matrix": pd.DataFrame(errors.matrix, sides, sides).rename_axis("true \\ predicted").reset_index(),
        "most_confused_pairs": errors.pairs,
        "worst_predictions": errors.cases,
        "high_confidence_errors": errors.confident,
        "error_types": per_type.reindex(list(types.delta_ap)).reset_index(),
        "calibration_per_class": calibration_table(errors),
        "calibration": pd.DataFrame(
            {
                "from": bins.edges[:-1],
                "to": bins.edges[1:],
                "mean_conf": bins.mean_conf,
                "precision": bins.precision,
                "n": bins.n,
            }
        ),
    }
    return tables | ({"categories": errors.categories.table} if errors.categories else {})


def error_figures(errors: DetectionErrors, samples: Sequence[Sample]) -> dict[str, Figure]:
    """Return the figures, by file name."""
    split, names, bins = errors.split, errors.names, errors.calibration.reliability
    counts = confidence_histogram(samples, n_classes=len(names), conf=errors.conf)
    return {
        "confusion_matrix": draw_matrix(
            errors.matrix, names, split=split, order=errors.order, background=True, conf=errors.conf, iou=0.5
        ),
        "error_types": error_types_chart(errors.types.delta_ap, split=split, counts=errors.counts, ap=errors.types.ap),
        "per_class": class_bars(
            errors.classes["ap50_95"],
            names,
            split=split,
            what="AP50-95",
            counted="objects",
            n=errors.classes["n_objects"].to_numpy(),
        ),
        "most_confused_pairs": confused_pairs_chart(errors.pairs, split=split),
        "reliability": reliability_diagram(
            bins.edges,
            bins.mean_conf,
            bins.precision,
            bins.n,
            split=split,
            error=errors.calibration.d_ece,
            what="precision",
            error_name="D-ECE",
        ),
        "confidence_histogram": draw_histogram(
            counts.edges,
            counts.right,
            counts.wrong,
            split=split,
            above=CONFIDENT,
            right_name="true positives",
            wrong_name="false positives",
        ),
    }


def _named(cases: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return cases with the names of their classes."""
    known = np.array(names, dtype=object)
    other = cases["other_class"].map(lambda c: None if pd.isna(c) else names[int(c)]).astype(object)
    return cases.assign(**{"class": known[cases["class_id"].to_numpy(dtype=int)], "other": other})
