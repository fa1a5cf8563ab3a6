"""The images to look at: for each class those that went most wrong and those that went best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlflow_yolo.classification.predictions import Floats, Ints, Predictions
from mlflow_yolo.exceptions import ArgumentError

Subtype = Literal["confusion", "low_confidence", "correct"]


@dataclass(frozen=True)
class Case:
    """One image as an example.

    Attributes:
        image: Index of the image in the predictions.
        class_id: Its true class.
        predicted: The class it was given.
        subtype: `confusion` for a wrong class, `low_confidence` for a right one among the worst, `correct` among the
            best.
        severity: In [0, 1]: the confidence of a wrong prediction, 1 - confidence of a right one.
        conf: Confidence of the prediction.
        true_probability: Probability of the true class.
    """

    image: int
    class_id: int
    predicted: int
    subtype: Subtype
    severity: float
    conf: float
    true_probability: float


@dataclass(frozen=True)
class ClassCases:
    """The examples of one class.

    Attributes:
        worst: Wrong ones from the most confident down, then right ones from the least confident up.
        best: Right ones from the most confident down. None of them is among the worst too.
    """

    worst: tuple[Case, ...]
    best: tuple[Case, ...]


def rank_cases(predictions: Predictions, *, per_class: int = 3) -> dict[int, ClassCases]:
    """Return the best and the worst images of every class, also of classes without any.

    Of a class with few images the best are chosen first, so that a right image is never both.

    Args:
        predictions: The images.
        per_class: Most of each to return.

    Raises:
        ArgumentError: `per_class` is negative.
    """
    if per_class < 0:
        raise ArgumentError(f"per_class={per_class} asks for no number of images: use 0 or more.")
    of_class = _images_by(predictions.true, len(predictions.names))
    return {class_id: _class_cases(predictions, images, per_class) for class_id, images in enumerate(of_class)}


def confused_cases(predictions: Predictions) -> Mapping[tuple[int, int], tuple[Case, ...]]:
    """Return the wrong images of every pair (true, predicted) that occurs, the most confident first."""
    wrong = np.nonzero(~predictions.is_correct)[0]
    cases: dict[tuple[int, int], list[Case]] = {}
    for image in wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]:
        pair = int(predictions.true[image]), int(predictions.predicted[image])
        cases.setdefault(pair, []).append(_case(predictions, int(image), "confusion"))
    return {pair: tuple(cases[pair]) for pair in sorted(cases)}


def all_cases(predictions: Predictions) -> pd.DataFrame:
    """Return one row per image, the most severe first.

    Returns:
        Columns `image`, `true`, `predicted` (names), `is_correct`, `severity`, `conf`, `true_probability`, `rank` of
        the true class (0: first), `index` of the image. Wrong images come before right ones; ties: the earlier image.
    """
    severity, right = _severity(predictions), predictions.is_correct
    order = np.lexsort((-severity, right))
    names = np.array(predictions.names, dtype=object)
    return pd.DataFrame(
        {
            "image": [predictions.images[i] for i in order],
            "true": names[predictions.true[order]],
            "predicted": names[predictions.predicted[order]],
            "is_correct": right[order],
            "severity": severity[order],
            "conf": predictions.confidence[order],
            "true_probability": predictions.true_probability[order],
            "rank": predictions.rank[order],
            "index": order.astype(np.int64),
        }
    )


def _severity(predictions: Predictions) -> Floats:
    return np.where(predictions.is_correct, 1 - predictions.confidence, predictions.confidence)


def _images_by(classes: Ints, n_classes: int) -> list[Ints]:
    """Return for each class the indices of its images, ascending."""
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(classes, minlength=n_classes))[:-1])


def _class_cases(predictions: Predictions, images: Ints, per_class: int) -> ClassCases:
    conf, right = predictions.confidence, predictions.is_correct
    correct = images[right[images]]
    correct = correct[np.argsort(-conf[correct], kind="stable")]
    best, rest = correct[:per_class], correct[per_class:]
    wrong = images[~right[images]]
    wrong = wrong[np.argsort(-conf[wrong], kind="stable")][:per_class]
    doubtful = rest[np.lexsort((rest, conf[rest]))][: per_class - len(wrong)]
    return ClassCases(
        worst=tuple(
            [_case(predictions, int(i), "confusion") for i in wrong]
            + [_case(predictions, int(i), "low_confidence") for i in doubtful]
        ),
        best=tuple(_case(predictions, int(i), "correct") for i in best),
    )


def _case(predictions: Predictions, image: int, subtype: Subtype) -> Case:
    conf = float(predictions.confidence[image])
    return Case(
        image=image,
        class_id=int(predictions.true[image]),
        predicted=int(predictions.predicted[image]),
        subtype=subtype,
        severity=conf if subtype == "confusion" else 1 - conf,
        conf=conf,
        true_probability=float(predictions.true_probability[image]),
    )
