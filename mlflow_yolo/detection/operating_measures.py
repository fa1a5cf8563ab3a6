"""What detections are worth at a threshold: precision, recall, F, cost, from counts alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Floats
from mlflow_yolo.exceptions import ArgumentError


@dataclass(frozen=True)
class Weighing:
    """What errors weigh.

    Attributes:
        beta: Recall counts beta times as much as precision in F-beta.
        c_fp: Cost of a detection that is wrong.
        c_fn: Cost of an object that is not found.

    Raises:
        ArgumentError: A weight that no error can have.
    """

    beta: float = 2.0
    c_fp: float = 1.0
    c_fn: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < np.inf:
            raise ArgumentError(
                f"beta={self.beta:g} weighs nothing. Use a number above 0: 2 for recall, 0.5 for precision."
            )
        for name, cost in (("c_fp", self.c_fp), ("c_fn", self.c_fn)):
            if not 0 <= cost < np.inf:
                raise ArgumentError(f"{name}={cost:g} is no cost. Use a number from 0 up.")
        if not self.c_fp + self.c_fn:
            raise ArgumentError("c_fp=0 and c_fn=0: then no error costs anything. Give at least one of them a cost.")


def f_score(tp: Floats, seen: Floats, n_objects: Floats, *, beta: float = 1.0) -> Floats:
    """Return F-beta of counts that broadcast; 0 where there is neither a detection nor an object.

    Source: van Rijsbergen, Information Retrieval (1979), ch. 7, written with counts.
    """
    return share((1 + beta**2) * tp, seen + beta**2 * n_objects)


def share(part: Floats, whole: npt.NDArray[np.floating]) -> Floats:
    """Return part / whole, 0 where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0))


def mean_over_classes(values: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean (...) of values (..., C) over the classes that count; nan where none does."""
    counted = np.broadcast_to(counted, values.shape)
    n_counted = counted.sum(axis=-1)
    total = np.where(counted, values, 0.0).sum(axis=-1)
    return np.asarray(np.divide(total, n_counted, out=np.full(np.shape(total), np.nan), where=n_counted > 0))


def measures(tp: Floats, seen: Floats, n_objects: Floats, n_images: int, weighing: Weighing) -> Mapping[str, Floats]:
    """Return what is measured of counts.

    Args:
        tp: (..., C) right detections.
        seen: (..., C) detections that count.
        n_objects: (C,) or (..., C) objects.
        n_images: Number of images.
        weighing: What errors weigh.

    Returns:
        By name, each (...): `precision`, `recall`, `f1` and `f_beta`, means over the classes that have objects, of
        precision over those of them that have detections too (a silent class is neither right nor wrong); nan where
        there is no such class; `cost` and `detections`, per image over all classes; `tp`, `fp` and `fn`, the counts
        over all classes.
    """
    tp, seen, n_objects = (np.asarray(one, np.float64) for one in (tp, seen, n_objects))
    right, wrong, missed = tp.sum(axis=-1), (seen - tp).sum(axis=-1), (n_objects - tp).sum(axis=-1)
    there = n_objects > 0
    return {
        "precision": mean_over_classes(share(tp, seen), there & (seen > 0)),
        "recall": mean_over_classes(share(tp, n_objects), there),
        "f1": mean_over_classes(f_score(tp, seen, n_objects), there),
        "f_beta": mean_over_classes(f_score(tp, seen, n_objects, beta=weighing.beta), there),
        "cost": (weighing.c_fp * wrong + weighing.c_fn * missed) / max(n_images, 1),
        "detections": seen.sum(axis=-1) / max(n_images, 1),
        "tp": right,
        "fp": wrong,
        "fn": missed,
    }
