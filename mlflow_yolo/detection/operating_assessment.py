"""What operating points are worth on images that they were not chosen on, with intervals over the images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Floats
from mlflow_yolo.detection.objective import Objective
from mlflow_yolo.detection.operating_measures import measures
from mlflow_yolo.detection.ranking import ImageCounts, Ranking
from mlflow_yolo.exceptions import ArgumentError

Point = tuple[float, npt.ArrayLike]
"""Overlap of suppression, and a confidence for each class (C,)."""


@dataclass(frozen=True)
class Interval:
    """A measure and its 95 % percentile interval over resampled images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Assessment:
    """What an operating point scores.

    Attributes:
        measured: By name, as in `operating_measures.measures`.
        change: The objective's measure minus the baseline's, on the same resampled images; None for the baseline.
    """

    measured: Mapping[str, Interval]
    change: Interval | None

    def is_better(self, objective: Objective) -> bool:
        """Return whether the point beats the baseline: the whole interval of the change lies on the better side."""
        if self.change is None:
            return False
        return self.change.low > 0 if objective.sign > 0 else self.change.high < 0


def cross_fit(
    rankings: Mapping[float, Ranking],
    *,
    points: Callable[[Mapping[float, Ranking]], Mapping[str, Point]],
    folds: int = 5,
    seed: int = 0,
) -> dict[str, ImageCounts]:
    """Return what each image counts at points that were chosen without it.

    The images are dealt into folds; for each the point is chosen on all others.

    Args:
        rankings: What was detected, by overlap of suppression.
        points: Returns operating points by name for the detections of some of the images.
        folds: Parts; no more than there are images.
        seed: Of the deal.

    Raises:
        ArgumentError: There are fewer than two images: nothing can be chosen without the one that is left out.
    """
    first = next(iter(rankings.values()))
    n_images = first.n_images
    if n_images < 2:
        raise ArgumentError(
            f"{n_images} image cannot be left out and still be chosen on. Use a split with two or more."
        )
    fold_of = np.random.default_rng(seed).permutation(n_images) % min(folds, n_images)
    found: dict[str, ImageCounts] = {}
    for fold in range(min(folds, n_images)):
        out = fold_of == fold
        chosen = points({iou: one.of_images(~out) for iou, one in rankings.items()})
        for name, (iou, thresholds) in chosen.items():
            counts = rankings[iou].of_images(out).image_counts(thresholds)
            found[name] = found[name] + counts if name in found else counts
    return found


def assess(
    counts: Mapping[str, ImageCounts],
    objective: Objective,
    *,
    baseline: str,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Assessment]:
    """Return what each operating point scores, with intervals of a bootstrap over the images, the same for all points.

    Args:
        counts: By name, what each image counts; the same images.
        objective: Its measure is compared, its weights count.
        baseline: The point the others are compared with.
        n_resamples: Bootstrap resamples.
        seed: Of the draws.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
    """
    n_images = counts[baseline].tp.shape[0]
    weights = np.ones((n_resamples + 1, n_images))
    rng = np.random.default_rng(seed)
    weights[1:] = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_resamples)
    drawn = {name: measures(*one.totals(weights), n_images, objective.weighing) for name, one in counts.items()}
    reference = drawn[baseline][objective.measure]
    return {
        name: Assessment(
            measured={measure: _interval(values) for measure, values in found.items()},
            change=None if name == baseline else _interval(found[objective.measure] - reference),
        )
        for name, found in drawn.items()
    }


def _interval(values: Floats) -> Interval:
    """Return the first value, which is that of the images as they are, and where the middle 95 % of the others lie."""
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (float("nan"), float("nan"))
    return Interval(float(values[0]), float(low), float(high))
