"""The confidence and IoU that are best for an objective, found exactly: every score is looked at, not a grid.

Between two neighbouring scores nothing changes, so of N detections at most N + 1 thresholds differ. The objectives are
sums over classes, and from one threshold to the next one class changes: all N + 1 values are one running sum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Floats, Ints
from mlflow_yolo.detection.objective import Objective
from mlflow_yolo.detection.operating_measures import f_score, share
from mlflow_yolo.detection.ranking import Ranking

DEFAULT_IOU = 0.7
"""Ultralytics' own overlap of suppression: of equally good ones the nearest to it is taken."""
_EQUAL = 1e-9
"""Values closer than this are equal: a running sum of a million of them is exact to about 1e-12."""
_DIGITS = range(2, 9)


@dataclass(frozen=True)
class Threshold:
    """The best confidence at one overlap of suppression.

    Attributes:
        conf: Detections with a score above it count.
        value: What the objective's measure has there.
        feasible: Whether its bound is kept; without it the point is the one that comes nearest.
        bounded: Value of the measure that the bound holds for; nan where there is no bound.
    """

    conf: float
    value: float
    feasible: bool = True
    bounded: float = float("nan")


@dataclass(frozen=True)
class Choice:
    """An operating point with one confidence for all classes.

    Attributes:
        iou: Overlap of suppression.
        best: The confidence, and what it reaches.
        by_iou: The same at every overlap that was looked at.
    """

    iou: float
    best: Threshold
    by_iou: Mapping[float, Threshold]

    @property
    def conf(self) -> float:
        """The confidence."""
        return self.best.conf


def choose(rankings: Mapping[float, Ranking], objective: Objective, *, conf: tuple[float, float]) -> Choice:
    """Return the best operating point.

    Args:
        rankings: What was detected, by overlap of suppression; at least one.
        objective: What is asked for.
        conf: Least and greatest confidence that may be chosen.

    Returns:
        The best confidence over all overlaps; where none keeps the objective's bound, the point that comes nearest to
        it. Of equal points the overlap nearest to 0.7 and the highest confidence.
    """
    by_iou = {iou: choose_conf(ranking, objective, conf=conf) for iou, ranking in rankings.items()}
    iou = best_iou(by_iou, objective)
    return Choice(iou, by_iou[iou], by_iou)


def best_iou(found: Mapping[float, Threshold], objective: Objective) -> float:
    """Return the overlap that reaches most; of equal ones the nearest to 0.7."""
    best = max(found.values(), key=lambda one: _worth(one, objective))
    equal = [iou for iou, one in found.items() if _is_as_good(one, best, objective)]
    return min(equal, key=lambda one: (abs(one - DEFAULT_IOU), one))


def choose_conf(ranking: Ranking, objective: Objective, *, conf: tuple[float, float]) -> Threshold:
    """Return the best confidence for all classes of a ranking together; of equal ones the highest.

    It lies in the middle between the lowest score that counts and the highest that does not, with as few decimals as
    that allows.
    """
    ends = _ends(ranking, *conf)
    values = np.nan_to_num(running(ranking, objective, objective.measure)[ends], nan=0.0)
    if objective.bound is None:
        at = _first_best(objective.sign * values)
        return Threshold(_between(ranking, int(ends[at]), *conf), float(values[at]))
    others = np.nan_to_num(running(ranking, objective, objective.bounded)[ends], nan=0.0)
    keeps = others >= objective.bound - _EQUAL
    feasible = bool(keeps.any())
    at = _first_best(np.where(keeps, values, -np.inf) if feasible else others)
    return Threshold(_between(ranking, int(ends[at]), *conf), float(values[at]), feasible, float(others[at]))


def running(ranking: Ranking, objective: Objective, measure: str) -> Floats:
    """Return a measure (N + 1,) of the k detections with the highest scores, for k from 0 to N.

    Args:
        ranking: The detections.
        objective: Its weights.
        measure: `precision`, `recall`, `f1`, `f_beta` or `cost`, as in `operating_measures.measures`; but 0 where there
            is no object, and precision nan where nothing is detected.
    """
    objects = ranking.n_objects
    n_present = max(int((objects > 0).sum()), 1)
    weighing = objective.weighing

    def total(of_class: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
        tp, seen, there = *_counts_of_own_class(ranking), objects[ranking.class_id]
        steps = of_class(tp, seen, there) - of_class(tp - ranking.right, seen - 1, there)
        nothing = of_class(np.zeros(len(objects)), np.zeros(len(objects)), objects).sum()
        return np.asarray(nothing + np.concatenate([[0.0], np.cumsum(steps)]))

    if measure == "cost":
        cost = total(lambda tp, seen, there: weighing.c_fp * (seen - tp) + weighing.c_fn * (there - tp))
        return np.asarray(cost / max(ranking.n_images, 1))
    if measure == "precision":
        precisions = total(lambda tp, seen, there: np.where(there > 0, share(tp, seen), 0.0))
        n_classes = np.rint(total(lambda _, seen, there: np.where((there > 0) & (seen > 0), 1.0, 0.0)))
        return np.asarray(np.divide(precisions, n_classes, out=np.full(len(precisions), np.nan), where=n_classes > 0))
    if measure == "recall":
        return total(lambda tp, _, there: share(tp, there)) / n_present
    beta = weighing.beta if measure == "f_beta" else 1.0
    return total(lambda tp, seen, there: np.where(there > 0, f_score(tp, seen, there, beta=beta), 0.0)) / n_present


def _counts_of_own_class(ranking: Ranking) -> tuple[Floats, Floats]:
    """Return for each detection how many of its class are right, and how many there are, up to it; each (N,)."""
    tp, seen = np.zeros((2, len(ranking.score)))
    for rows in ranking.rows_by_class():
        tp[rows] = np.cumsum(ranking.right[rows])
        seen[rows] = np.arange(1, len(rows) + 1)
    return tp, seen


def _ends(ranking: Ranking, low: float, high: float) -> Ints:
    """Return the numbers of detections that a threshold from `low` to `high` can let through, rising."""
    score = ranking.score
    most, least = (int(np.searchsorted(-score, -np.float32(conf), side="left")) for conf in (low, high))
    possible = np.arange(least, most + 1)
    inside = (possible > 0) & (possible < len(score))
    split_ties = np.zeros(len(possible), dtype=np.bool_)
    split_ties[inside] = score[possible[inside] - 1] == score[possible[inside]]
    return possible[~split_ties]


def _first_best(values: Floats) -> int:
    """Return the place of the greatest value, the first of equal ones: that of the highest threshold."""
    best = values.max()
    return int(np.flatnonzero(values >= best - _EQUAL * max(1.0, abs(float(best))))[0])


def _between(ranking: Ranking, end: int, low: float, high: float) -> float:
    """Return a threshold from `low` to `high` that lets through exactly the first `end` detections."""
    score = ranking.score
    below = float(score[end]) if end < len(score) and score[end] > low else low
    above = float(score[end - 1]) if end > 0 and score[end - 1] < high else high
    middle = (below + above) / 2
    for digits in _DIGITS:
        rounded = round(middle, digits)
        # Compared in single precision, as Ultralytics and the runtime do, and well inside the gap.
        apart = abs(rounded - middle) <= (above - below) / 4 and low <= rounded <= high
        if apart and int(np.searchsorted(-score, -np.float32(rounded), side="left")) == end:
            return rounded
    return min(below, high)  # `below` is the float32 next to `high` where both are one number in single precision


def _worth(one: Threshold, objective: Objective) -> tuple[bool, float]:
    return one.feasible, objective.sign * one.value if one.feasible else one.bounded


def _is_as_good(one: Threshold, best: Threshold, objective: Objective) -> bool:
    (feasible, value), (wanted, most) = _worth(one, objective), _worth(best, objective)
    return feasible == wanted and value >= most - _EQUAL * max(1.0, abs(most))
