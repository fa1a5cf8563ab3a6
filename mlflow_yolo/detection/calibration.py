"""Does a confidence of .8 mean that four of five such detections are right? Calibration at the operating point.

All of it looks at the detections with at least the operating confidence: below lies a flood of detections near 0, wrong
as they should be, which would make any detector look calibrated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.evaluation import mean_of_present
from mlflow_yolo.detection.outcomes import find_outcomes
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.detection.worst_predictions import all_cases
from mlflow_yolo.exceptions import ArgumentError, ShapeError


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against precision, in B bins of the confidence, none of them empty.

    Attributes:
        edges: (B + 1,) rising; the bins touch, the last holds its upper edge. [0] without any detection.
        mean_conf: (B,) mean confidence.
        precision: (B,) share of detections that are right, or, with IoU, this share times their mean IoU.
        n: (B,) detections.
    """

    edges: Floats
    mean_conf: Floats
    precision: Floats
    n: Ints

    @property
    def error(self) -> float:
        """The expected calibration error: mean |mean_conf - precision|, weighted by n; nan without any detection."""
        return float(np.average(np.abs(self.mean_conf - self.precision), weights=self.n)) if len(self.n) else np.nan


@dataclass(frozen=True, eq=False)
class CalibrationError:
    """How far a detector's confidences are from what they promise.

    Attributes:
        conf: Detections from this confidence on were looked at.
        d_ece: Detection ECE of all of them: the confidence should be the precision. nan without any.
        la_ece: Localisation-aware ECE, mean over the classes that have detections: the confidence should be the
            precision times the mean IoU of what is right. nan without any.
        d_ece_per_class: (C,) nan for a class without detections.
        la_ece_per_class: (C,) nan for a class without detections.
        n_per_class: (C,) detections.
        reliability: The bins behind `d_ece`.
    """

    conf: float
    d_ece: float
    la_ece: float
    d_ece_per_class: Floats
    la_ece_per_class: Floats
    n_per_class: Ints
    reliability: Reliability


@dataclass(frozen=True, eq=False)
class ConfidenceHistogram:
    """How many detections are right and wrong by confidence.

    Attributes:
        edges: (B + 1,) from 0 to 1.
        right: (B,) right ones.
        wrong: (B,) wrong ones.
    """

    edges: Floats
    right: Ints
    wrong: Ints


def reliability(
    conf: Floats, right: Bools, *, iou: Floats | None = None, n_bins: int = 25, least: int = 10
) -> Reliability:
    """Return confidence against precision in equally wide bins of [0, 1], small ones merged.

    Args:
        conf: (N,) confidences in [0, 1].
        right: (N,) whether each detection is right.
        iou: (N,) overlap with the object found; makes it precision times mean IoU of what is right.
        n_bins: Bins before merging.
        least: A bin with fewer detections is merged with the next one above, the last with the one below; empty bins at
            both ends are cut off.

    Raises:
        ShapeError: The arrays differ in length.
        ArgumentError: A confidence lies outside [0, 1], or there is less than one bin.

    Source: Kuzucu et al., On Calibration of Object Detectors (ECCV 2024); merging is ours.
    """
    if not len(conf) == len(right) == len(conf if iou is None else iou):
        raise ShapeError(f"{len(conf)} confidences with {len(right)} verdicts: pass one of each per detection.")
    edges = _edges(n_bins)
    index = _bin(conf, edges)
    starts = _merged(np.bincount(index, minlength=n_bins), least)
    if not starts:
        return Reliability(np.zeros(1), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    merged = np.searchsorted(starts, index, side="right") - 1
    n = np.bincount(merged)
    value = right.astype(np.float64) if iou is None else np.where(right, iou, 0.0)
    return Reliability(
        edges=edges[[*starts, index.max() + 1]],
        mean_conf=np.bincount(merged, weights=conf) / n,
        precision=np.bincount(merged, weights=value) / n,
        n=n,
    )


def calibration_error(
    samples: Sequence[Sample], *, n_classes: int, conf: float, iou: float = 0.5, n_bins: int = 25
) -> CalibrationError:
    """Return D-ECE and LaECE of the detections with at least `conf`.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: The operating point, see `operating_point.operating_confidence`.
        iou: Overlap from which a detection is right.
        n_bins: Bins before those with fewer than ten detections are merged.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1, or a confidence lies outside [0, 1].

    Source: Küppers et al., Multivariate Confidence Calibration for Object Detection (CVPR Workshops 2020), of the
    confidence alone; Oksuz et al., Towards Building Self-Aware Object Detectors (CVPR 2023).
    """
    outcomes = find_outcomes(samples, n_classes=n_classes, conf=conf, t_foreground=iou, t_background=iou / 2)
    pooled = reliability(outcomes.conf, outcomes.right, n_bins=n_bins)
    d_ece, la_ece = np.full(n_classes, np.nan), np.full(n_classes, np.nan)
    for class_id in np.unique(outcomes.class_id):
        of_class = outcomes.class_id == class_id
        found, right, overlap = outcomes.conf[of_class], outcomes.right[of_class], outcomes.iou[of_class]
        d_ece[class_id] = reliability(found, right, n_bins=n_bins).error
        la_ece[class_id] = reliability(found, right, iou=overlap, n_bins=n_bins).error
    return CalibrationError(
        conf=conf,
        d_ece=pooled.error,
        la_ece=mean_of_present(la_ece),
        d_ece_per_class=d_ece,
        la_ece_per_class=la_ece,
        n_per_class=np.bincount(outcomes.class_id, minlength=n_classes),
        reliability=pooled,
    )


def confidence_histogram(
    samples: Sequence[Sample], *, n_classes: int, conf: float = 0.0, n_bins: int = 20
) -> ConfidenceHistogram:
    """Return how many detections with at least `conf` are right and wrong at IoU .5, by confidence.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: Detections below this score are left out.
        n_bins: Equally wide bins of [0, 1].

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1, or a confidence lies outside [0, 1].
    """
    outcomes = find_outcomes(samples, n_classes=n_classes, conf=conf)
    edges = _edges(n_bins)
    right, wrong = (
        np.bincount(_bin(outcomes.conf[which], edges), minlength=n_bins) for which in (outcomes.right, ~outcomes.right)
    )
    return ConfidenceHistogram(edges, right, wrong)


def high_confidence_errors(samples: Sequence[Sample], *, n_classes: int, above: float = 0.9) -> pd.DataFrame:
    """Return the wrong detections with a confidence above `above`, the surest first, whatever their class.

    Many of kind `background` are objects that the labels lack.

    Args:
        samples: The images.
        n_classes: Number of classes.
        above: The confidence that they exceed.

    Returns:
        Rows of `worst_predictions.all_cases`.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    table = all_cases(samples, n_classes=n_classes, conf=above)
    sure = table[~table["right"] & table["detection"].notna() & (table["conf"] > above)]
    return sure.sort_values(["conf", "image", "detection"], ascending=[False, True, True], ignore_index=True)


def _edges(n_bins: int) -> Floats:
    if n_bins < 1:
        raise ArgumentError(f"n_bins={n_bins} is too few: use 25.")
    return np.arange(n_bins + 1) / n_bins


def _bin(conf: Floats, edges: Floats) -> Ints:
    """Return the bin (N,) of each confidence; 1 belongs to the last."""
    wrong = conf[~((conf >= 0) & (conf <= 1))]
    if len(wrong):
        raise ArgumentError(f"confidence {wrong[0]} lies outside [0, 1]: pass probabilities, not logits.")
    return np.minimum(np.searchsorted(edges, conf, side="right") - 1, len(edges) - 2)


def _merged(counts: Ints, least: int) -> list[int]:
    """Return the first bin of each merged bin; each holds at least `least` detections, if there are as many."""
    occupied = np.flatnonzero(counts)
    if not len(occupied):
        return []
    starts, held = [int(occupied[0])], 0
    for index in range(starts[0], int(occupied[-1]) + 1):
        if held >= max(least, 1):
            starts.append(index)
            held = 0
        held += int(counts[index])
    return starts[:-1] if len(starts) > 1 and held < least else starts
