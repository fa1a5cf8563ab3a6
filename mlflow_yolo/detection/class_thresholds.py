"""A confidence for each class: suppression knows no other class, so each is chosen by itself and exactly."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Floats
from mlflow_yolo.detection.objective import Objective
from mlflow_yolo.detection.operating_choice import Choice, Threshold, best_iou, choose_conf
from mlflow_yolo.detection.operating_measures import measures
from mlflow_yolo.detection.ranking import Ranking

FULL_TRUST = 30
"""Objects from which a class's own threshold counts fully; below it is drawn towards the one for all classes."""


@dataclass(frozen=True)
class ClassThreshold:
    """The threshold of one class.

    Attributes:
        class_id: The class.
        n_objects: Objects it was chosen on.
        own: The best one for this class alone; None without objects, or where the class cannot keep the bound.
        conf: The one to use: `own`, drawn in a straight line towards the one for all classes where objects are few.
    """

    class_id: int
    n_objects: int
    own: Threshold | None
    conf: float


@dataclass(frozen=True)
class ClassChoice:
    """An operating point with a confidence for each class.

    Attributes:
        iou: Overlap of suppression.
        common: The best confidence for all classes at this overlap.
        value: What the objective's measure has on the images it was chosen on.
        classes: One entry a class.
    """

    iou: float
    common: float
    value: float
    classes: tuple[ClassThreshold, ...]

    @property
    def confs(self) -> Floats:
        """The confidence of each class, (C,)."""
        return np.array([one.conf for one in self.classes])


def choose_by_class(
    rankings: Mapping[float, Ranking], objective: Objective, choice: Choice, *, conf: tuple[float, float]
) -> ClassChoice:
    """Return the best confidence of every class, at the overlap where these are best together.

    Args:
        rankings: What was detected, by overlap of suppression.
        objective: What is asked for; its bound is kept by each class that can.
        choice: The operating points for all classes, of the same rankings.
        conf: Least and greatest confidence that may be chosen.
    """
    found = {iou: _classes(ranking, objective, choice.by_iou[iou].conf, conf=conf) for iou, ranking in rankings.items()}
    reached = {iou: _reached(rankings[iou], objective, classes) for iou, classes in found.items()}
    iou = best_iou(reached, objective)
    return ClassChoice(iou, choice.by_iou[iou].conf, reached[iou].value, found[iou])


def _classes(
    ranking: Ranking, objective: Objective, common: float, *, conf: tuple[float, float]
) -> tuple[ClassThreshold, ...]:
    found = []
    objects = ranking.n_objects.astype(int)
    for class_id, rows in enumerate(ranking.rows_by_class()):
        n = int(objects[class_id])
        own = choose_conf(ranking.of_class(rows, class_id), objective, conf=conf) if n else None
        own = own if own is not None and own.feasible else None
        weight = min(n / FULL_TRUST, 1.0) if own is not None else 0.0
        found.append(ClassThreshold(class_id, n, own, _drawn(common, own.conf if own else common, weight)))
    return tuple(found)


def _drawn(common: float, own: float, weight: float) -> float:
    """Return `own` for weight 1, `common` for weight 0, and between them otherwise."""
    return own if weight == 1 else common if weight == 0 else round(common + weight * (own - common), 4)


def _reached(ranking: Ranking, objective: Objective, classes: tuple[ClassThreshold, ...]) -> Threshold:
    """Return what these thresholds reach together, without a confidence of their own."""
    tp, seen = ranking.counts_by_class(np.array([one.conf for one in classes]))
    found = measures(tp, seen, ranking.n_objects, ranking.n_images, objective.weighing)
    value = float(np.nan_to_num(found[objective.measure], nan=0.0))
    if objective.bound is None:
        return Threshold(float("nan"), value)
    bounded = float(np.nan_to_num(found[objective.bounded], nan=0.0))
    return Threshold(float("nan"), value, bounded >= objective.bound, bounded)
