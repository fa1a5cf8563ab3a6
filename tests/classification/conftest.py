"""Predictions whose every number can be counted by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mlflow_yolo.classification.predictions import Predictions


@pytest.fixture(scope="session")
def predict() -> Callable[..., Predictions]:
    """Return a function of rows (true, predicted, confidence) that spreads the rest over the other classes."""

    def build(rows: Sequence[tuple[int, int, float]], names: Sequence[str] = ("cat", "dog", "owl")) -> Predictions:
        probabilities = np.empty((len(rows), len(names)), dtype=np.float32)
        for row, (_, predicted, confidence) in zip(probabilities, rows, strict=True):
            row[:] = (1 - confidence) / max(len(names) - 1, 1)
            row[predicted] = confidence
        images = tuple(f"{i}.png" for i in range(len(rows)))
        return Predictions(images, np.array([true for true, _, _ in rows], dtype=np.int64), probabilities, tuple(names))

    return build


@pytest.fixture(scope="session")
def nine(predict: Callable[..., Predictions]) -> Predictions:
    """Return nine images: of four cats two are right, of three dogs all, of two owls none."""
    rows = [
        (0, 0, 0.9),
        (0, 0, 0.6),
        (0, 1, 0.95),
        (0, 1, 0.75),
        (1, 1, 1.0),
        (1, 1, 0.8),
        (1, 1, 0.5),
        (2, 0, 0.55),
        (2, 1, 0.65),
    ]
    return predict(rows)
