"""The operating point of what was detected: chosen exactly on one split, assessed on images it was not chosen on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.class_thresholds import ClassChoice, choose_by_class
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.operating_assessment import Assessment, Point, assess, cross_fit
from mlflow_yolo.detection.operating_choice import DEFAULT_IOU, Choice, choose
from mlflow_yolo.detection.ranking import ImageCounts, Ranking
from mlflow_yolo.detection.threshold_surface import Surface, threshold_surface
from mlflow_yolo.studies.thresholds.question import Question

DEFAULT_CONF = 0.25
"""What Ultralytics' predict uses unless told otherwise, with `DEFAULT_IOU`."""

DEFAULT, COMMON, CLASSES = "default", "one threshold", "a threshold for each class"
"""The operating points that are compared."""


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What is recommended, and what it is worth.

    Attributes:
        choice: The point with one confidence, chosen on all images of the choosing split.
        by_class: The point with a confidence for each class.
        ships_per_class: Whether the confidences for single classes are recommended.
        surface: Every measure over the grid, on the choosing split.
        cross: Each point on images of the choosing split that it was not chosen on; None with a single image.
        held_out: Each point on the reporting split; None where that is the choosing split.
        counts: What the assessment that is reported counted in each image, by point.
        n_full: Images of the choosing split in which `max_det` cut something off.
    """

    choice: Choice
    by_class: ClassChoice
    ships_per_class: bool
    surface: Surface
    cross: Mapping[str, Assessment] | None
    held_out: Mapping[str, Assessment] | None
    counts: Mapping[str, ImageCounts]
    n_full: int

    @property
    def reported(self) -> Mapping[str, Assessment] | None:
        """The assessment on the reporting split."""
        return self.held_out if self.held_out is not None else self.cross

    @property
    def shipped(self) -> str:
        """The point that is recommended."""
        return CLASSES if self.ships_per_class else COMMON

    @property
    def point(self) -> tuple[float, float]:
        """Confidence and overlap that are recommended; the first for where only one confidence is possible."""
        if self.ships_per_class:
            return self.by_class.common, self.by_class.iou
        return self.choice.conf, self.choice.iou


def recommend(
    arrays: Mapping[float, MatchArrays],
    question: Question,
    *,
    masks: bool,
    limit: int,
    held_out: Callable[[set[float]], Mapping[float, MatchArrays]] | None,
) -> Recommendation:
    """Return the operating point.

    Args:
        arrays: What was detected on the choosing split, at every overlap of the question and the default one.
        question: What is asked.
        masks: Judge by masks.
        limit: Detections an image that were kept.
        held_out: Returns what was detected on the reporting split at the overlaps it is given; None where that is the
            choosing split.
    """
    objective = question.objective
    rankings = {iou: Ranking.of(one, level=question.level, masks=masks) for iou, one in arrays.items()}
    choice, by_class = _choose(rankings, question)
    points = _points(choice, by_class)
    n_images = next(iter(arrays.values())).n_images
    cross, counts = None, _counts(rankings, points)
    if n_images > 1:
        counts = cross_fit(rankings, points=lambda part: _points(*_choose(part, question)))
        cross = assess(counts, objective, baseline=DEFAULT)
    per_class = question.per_class == "true" or (question.per_class == "auto" and _pays(counts, question, n_images))
    reported = None
    if held_out is not None:
        there = held_out({iou for iou, _ in points.values()})
        counts = _counts({i: Ranking.of(a, level=question.level, masks=masks) for i, a in there.items()}, points)
        reported = assess(counts, objective, baseline=DEFAULT)
    return Recommendation(
        choice=choice,
        by_class=by_class,
        ships_per_class=per_class,
        surface=threshold_surface(
            {iou: arrays[iou] for iou in question.ious},
            question.confs,
            weighing=objective.weighing,
            level=question.level,
            masks=masks,
        ),
        cross=cross,
        held_out=reported,
        counts=counts,
        n_full=_n_full(arrays[by_class.iou], limit),
    )


def _choose(rankings: Mapping[float, Ranking], question: Question) -> tuple[Choice, ClassChoice]:
    asked = {iou: rankings[iou] for iou in question.ious}
    choice = choose(asked, question.objective, conf=question.span)
    return choice, choose_by_class(asked, question.objective, choice, conf=question.span)


def _points(choice: Choice, by_class: ClassChoice) -> dict[str, Point]:
    n_classes = len(by_class.classes)
    return {
        DEFAULT: (DEFAULT_IOU, np.full(n_classes, DEFAULT_CONF)),
        COMMON: (choice.iou, np.full(n_classes, choice.conf)),
        CLASSES: (by_class.iou, by_class.confs),
    }


def _counts(rankings: Mapping[float, Ranking], points: Mapping[str, Point]) -> dict[str, ImageCounts]:
    return {name: rankings[iou].image_counts(confs) for name, (iou, confs) in points.items()}


def _pays(counts: Mapping[str, ImageCounts], question: Question, n_images: int) -> bool:
    """Return whether a threshold for each class is shown to be better than one, on images neither was chosen on."""
    if n_images < 2 or counts[COMMON].tp.shape[1] < 2:
        return False
    objective = question.objective
    found = assess({name: counts[name] for name in (COMMON, CLASSES)}, objective, baseline=COMMON)
    if not found[CLASSES].is_better(objective):
        return False
    if objective.bound is None:
        return True
    kept = [found[name].measured[objective.bounded].value for name in (CLASSES, COMMON)]
    return kept[0] >= min(objective.bound, kept[1])


def _n_full(arrays: MatchArrays, limit: int) -> int:
    return int((np.bincount(arrays.image, minlength=arrays.n_images) >= limit).sum())
