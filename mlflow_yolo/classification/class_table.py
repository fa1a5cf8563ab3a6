"""One row per class: how many images, how many of them right, and what the others were taken for."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.classification.confusion import confusion_matrix
from mlflow_yolo.classification.predictions import Floats, Predictions
from mlflow_yolo.classification.wilson import wilson_interval

TOP = 5
"""Guesses of top-5 accuracy."""


def class_table(predictions: Predictions) -> pd.DataFrame:
    """Return the scores of each class, in the order of their ids.

    Returns:
        Columns: `name`; `n` images of the class; `accuracy` (its recall) with its 95 % Wilson interval `low`, `high`;
        `precision` (NaN for a class never predicted); `f1` (NaN for one that is neither there nor predicted); `top5`,
        the share of its images with the true class among the first five; `mean_conf`, the mean confidence of whatever
        was predicted for them; `confused_with`, the class they are taken for most often (of several the first; empty
        where there is none), and `confused_count`, how often. What is measured on a class's images is NaN without any.
    """
    matrix = confusion_matrix(predictions)
    right, n, n_predicted = matrix.diagonal().copy(), matrix.sum(axis=1), matrix.sum(axis=0)
    low, high = wilson_interval(right, n)
    np.fill_diagonal(matrix, 0)
    other, other_count = matrix.argmax(axis=1), matrix.max(axis=1)
    true, n_classes = predictions.true, len(predictions.names)
    return pd.DataFrame(
        {
            "name": list(predictions.names),
            "n": n,
            "accuracy": _share(right, n),
            "low": low,
            "high": high,
            "precision": _share(right, n_predicted),
            "f1": _share(2 * right, n + n_predicted),
            "top5": _share(np.bincount(true[predictions.rank < TOP], minlength=n_classes), n),
            "mean_conf": _share(np.bincount(true, weights=predictions.confidence, minlength=n_classes), n),
            "confused_with": [
                predictions.names[i] if count else "" for i, count in zip(other, other_count, strict=True)
            ],
            "confused_count": other_count,
        }
    )


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
