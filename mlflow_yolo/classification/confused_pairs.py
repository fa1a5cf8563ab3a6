"""Which class is taken for which: the off-diagonal cells of a confusion matrix, each with its rate and interval."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.classification.wilson import wilson_interval
from mlflow_yolo.exceptions import ShapeError

BACKGROUND = "background"


def confused_pairs(
    matrix: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    least: int = 3,
    background: bool = False,
    mean_conf: npt.NDArray[np.floating] | None = None,
) -> pd.DataFrame:
    """Return the confused pairs of classes, the most frequent first.

    Args:
        matrix: (C, C) counts [true, predicted]; with `background` (C+1, C+1), background last.
        names: C class names, without background.
        least: Pairs that happened less often are left out.
        background: Whether the matrix is a detector's. Then pairs with "background" are missed objects (predicted) and
            detections of nothing (true).
        mean_conf: Mean confidence of each cell, shape of the matrix; None leaves that column out.

    Returns:
        One row per pair: `true`, `predicted` (names), `count`, `n_true` (sum of the row; of background: all detections
        of nothing), `rate` = count / n_true with its 95 % Wilson interval `low`, `high`, `both_ways` (the count of both
        directions), `mean_conf` if given, `true_id`, `predicted_id`. Ties: higher rate, then lower class ids. No rows
        where nothing is confused.

    Raises:
        ShapeError: Matrix, names and mean_conf do not fit together.
    """
    size = len(names) + background
    for what, array in (("the confusion matrix", matrix), ("mean_conf", mean_conf)):
        if array is not None and array.shape != (size, size):
            raise ShapeError(f"{what} has shape {array.shape} for {len(names)} class names. Pass ({size}, {size}).")
    counts = np.array(matrix, dtype=np.int64)
    n_true = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    true, predicted = np.nonzero(counts >= max(least, 1))
    count = counts[true, predicted]
    order = np.lexsort((predicted, true, -count / n_true[true], -count))
    true, predicted, count = true[order], predicted[order], count[order]
    low, high = wilson_interval(count, n_true[true])
    labels = np.array([*names, BACKGROUND][:size], dtype=object)
    columns = {
        "true": labels[true],
        "predicted": labels[predicted],
        "count": count,
        "n_true": n_true[true],
        "rate": count / n_true[true],
        "low": low,
        "high": high,
        "both_ways": count + counts[predicted, true],
    }
    if mean_conf is not None:
        columns["mean_conf"] = np.asarray(mean_conf, dtype=np.float64)[true, predicted]
    return pd.DataFrame({**columns, "true_id": true.astype(np.int64), "predicted_id": predicted.astype(np.int64)})
