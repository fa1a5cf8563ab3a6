"""What a classifier got wrong on a split, from its stored probabilities alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.classification.best_and_worst import all_cases
from mlflow_yolo.classification.calibration import (
    ConfidenceSummary,
    confidence_counts,
    high_confidence_errors,
    reliability,
    summarise,
)
from mlflow_yolo.classification.categories import Categories, CategoryErrors, category_errors
from mlflow_yolo.classification.class_table import class_table
from mlflow_yolo.classification.confused_pairs import confused_pairs
from mlflow_yolo.classification.confusion import cluster_order, confusion_matrix, mean_confidences
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.explanation.detection_errors import CONFIDENT, MOST_IN_ORDER
from mlflow_yolo.figures.class_bars import class_bars
from mlflow_yolo.figures.confidence_histogram import confidence_histogram
from mlflow_yolo.figures.confused_pairs_chart import confused_pairs_chart
from mlflow_yolo.figures.confusion_matrix import confusion_matrix as draw_matrix
from mlflow_yolo.figures.reliability import reliability_diagram
from mlflow_yolo.figures.style import Figure


@dataclass(frozen=True, eq=False)
class ClassificationErrors:
    """The errors of a split.

    Attributes:
        split: Its name.
        predictions: What they are read from.
        classes: See `classification.class_table`.
        matrix: (C, C) counts [true, predicted].
        pairs: See `classification.confused_pairs`.
        confidence: Confidence against being right.
        confident: The images that are wrong with a confidence above 0.9.
        categories: Errors within and across categories, None without categories.
    """

    split: str
    predictions: Predictions
    classes: pd.DataFrame
    matrix: npt.NDArray[np.int64]
    pairs: pd.DataFrame
    confidence: ConfidenceSummary
    confident: pd.DataFrame
    categories: CategoryErrors | None


def find_errors(predictions: Predictions, *, split: str, groups: Categories | None = None) -> ClassificationErrors:
    """Return the errors of a split.

    Args:
        predictions: Of all its images.
        split: Its name.
        groups: Categories of the classes.
    """
    matrix = confusion_matrix(predictions)
    return ClassificationErrors(
        split=split,
        predictions=predictions,
        classes=class_table(predictions),
        matrix=matrix,
        pairs=confused_pairs(matrix, predictions.names, mean_conf=mean_confidences(predictions)),
        confidence=summarise(predictions.confidence, predictions.is_correct, above=CONFIDENT),
        confident=high_confidence_errors(predictions, above=CONFIDENT),
        categories=category_errors(matrix, groups) if groups else None,
    )


def error_tables(errors: ClassificationErrors) -> dict[str, pd.DataFrame]:
    """Return the tables that are kept, by file name."""
    names = errors.predictions.names
    matrix = pd.DataFrame(errors.matrix, names, names).rename_axis("true \\ predicted").reset_index()
    tables = {
        "per_class_accuracy": errors.classes,
        "most_confused_pairs": errors.pairs,
        "confusion_matrix": matrix,
        "worst_predictions": all_cases(errors.predictions),
        "high_confidence_errors": errors.confident,
    }
    return tables | ({"categories": errors.categories.table} if errors.categories else {})


def error_figures(errors: ClassificationErrors) -> dict[str, Figure]:
    """Return the figures, by file name."""
    predictions, split, names = errors.predictions, errors.split, errors.predictions.names
    bins = reliability(predictions.confidence, predictions.is_correct)
    counts = confidence_counts(predictions.confidence, predictions.is_correct)
    order = cluster_order(errors.matrix) if len(names) > MOST_IN_ORDER else None
    low, high, n = (errors.classes[name].to_numpy() for name in ("low", "high", "n"))
    return {
        "confusion_matrix": draw_matrix(errors.matrix, names, split=split, order=order),
        "per_class_accuracy": class_bars(errors.classes["accuracy"], names, split=split, low=low, high=high, n=n),
        "most_confused_pairs": confused_pairs_chart(errors.pairs, split=split),
        "reliability": reliability_diagram(
            *(bins.edges, bins.mean_conf, bins.accuracy, bins.n),
            split=split,
            error=errors.confidence.error,
            low=bins.low,
            high=bins.high,
        ),
        "confidence_histogram": confidence_histogram(
            counts.edges, counts.right, counts.wrong, split=split, above=CONFIDENT
        ),
    }
