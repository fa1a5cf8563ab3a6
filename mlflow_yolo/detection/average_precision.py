"""COCO's 101-point average precision, for many weightings of the images at once.

Only the true positives matter: between two of them precision falls, so the envelope of the precision-recall curve
touches the curve at true positives alone. That, and counting how many of the 101 recall points each true positive is
the first to reach, replaces the search in the full curve; the value is the same.

Source: COCO API, cocoeval.py, `accumulate`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Floats, Ints

RECALL_POINTS: Floats = np.linspace(0.0, 1.0, 101)

# COCO compares TP / objects with these floats. A few, 0.35 among them, lie one rounding error above the hundredth they
# stand for, so that 35 of 100 objects do not reach the point 0.35. Kept, to be equal to COCO.
_ABOVE_HUNDREDTH = np.arange(101) / 100 < RECALL_POINTS


def envelope(tp: Floats, seen: Floats) -> Floats:
    """Return the highest precision at each true positive's recall or beyond it.

    Args:
        tp: (R, B) true positives up to and including each of R of them, in the order of the scores, for B weightings.
        seen: (R, B) detections that count up to there.

    Returns:
        (R, B) in [0, 1], falling along the first axis.
    """
    precision = np.divide(tp, seen, out=np.zeros_like(tp), where=seen > 0)
    return np.asarray(np.maximum.accumulate(precision[::-1], axis=0)[::-1])


def points_gained(tp: Floats, n_objects: npt.NDArray[Any]) -> Ints:
    """Return how many of the 101 recall points each true positive is the first to reach.

    Args:
        tp: (R, B) as in `envelope`.
        n_objects: (B,) objects, > 0.

    Returns:
        (R, B) counts; their sum along the first axis is the number of points reached at all.
    """
    percent = 100.0 * tp / n_objects
    whole = percent.astype(np.int64)
    reached = whole + 1 - (_ABOVE_HUNDREDTH[whole] & (percent == whole))
    return np.asarray(np.diff(reached, axis=0, prepend=0))


def average_precision(tp: Floats, seen: Floats, n_objects: Floats) -> Floats:
    """Return the average precision of one class at one IoU threshold.

    Args:
        tp: (R, B) true positives up to and including each of R of them, in the order of the scores, for B weightings.
        seen: (R, B) detections that count up to there.
        n_objects: (B,) objects of the class.

    Returns:
        (B,) in [0, 1]; nan where there is no object, 0 where there are objects and no true positive.
    """
    total = np.einsum("rb,rb->b", envelope(tp, seen), points_gained(tp, np.maximum(n_objects, 1.0)).astype(np.float64))
    return np.where(n_objects > 0, total / len(RECALL_POINTS), np.nan)
