"""The confusion matrix of a classifier, axes [true, predicted], and an order of classes that shows its structure."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from mlflow_yolo.classification.predictions import Floats, Ints, Predictions
from mlflow_yolo.exceptions import ShapeError


def confusion_matrix(predictions: Predictions) -> Ints:
    """Return (C, C) how many images of each class [true] were given each class [predicted]; all 0 for no images."""
    n_classes = len(predictions.names)
    cells = predictions.true * n_classes + predictions.predicted
    return np.bincount(cells, minlength=n_classes**2).astype(np.int64).reshape(n_classes, n_classes)


def mean_confidences(predictions: Predictions) -> Floats:
    """Return (C, C) the mean confidence of the images of each cell [true, predicted]; NaN for an empty cell."""
    n_classes = len(predictions.names)
    cells = predictions.true * n_classes + predictions.predicted
    total = np.bincount(cells, weights=predictions.confidence, minlength=n_classes**2)
    count = np.bincount(cells, minlength=n_classes**2)
    mean = np.divide(total, count, out=np.full(n_classes**2, np.nan), where=count > 0)
    return np.asarray(mean.reshape(n_classes, n_classes))


def row_shares(matrix: Ints) -> Floats:
    """Return the matrix with each row, a true class, as fractions of its sum; 0 where the class does not occur."""
    counts = np.asarray(matrix, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0))


def cluster_order(matrix: Ints) -> Ints:
    """Return the order of classes in which those that are taken for each other stand side by side.

    Args:
        matrix: (C, C) counts [true, predicted]. Of a detector's leave the background out: `matrix[:-1, :-1]`.

    Returns:
        (C,) a permutation of the class ids; their own order where nothing is confused.

    Raises:
        ShapeError: The matrix is not square.

    Source: ours. Classes are joined by the mean share of confusion in both directions (average linkage), leaves ordered
    by Bar-Joseph et al. (2001), "Fast optimal leaf ordering".
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"the confusion matrix has shape {matrix.shape}. Pass a square one.")
    shares = row_shares(matrix)
    closeness = (shares + shares.T) / 2
    np.fill_diagonal(closeness, 0.0)
    if len(matrix) < 3 or not closeness.any():
        return np.arange(len(matrix), dtype=np.int64)
    distance = closeness.max() - closeness
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), dtype=np.int64)
