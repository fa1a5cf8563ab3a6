"""One row per class: how many there are, how many are found, and how well."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlflow_yolo.detection.boxes import Floats, Ints
from mlflow_yolo.detection.confusion import confusion_matrix
from mlflow_yolo.detection.evaluation import Evaluation, evaluate
from mlflow_yolo.detection.outcomes import find_outcomes
from mlflow_yolo.detection.samples import Sample


def class_table(
    samples: Sequence[Sample], *, names: Sequence[str], conf: float, evaluation: Evaluation | None = None
) -> pd.DataFrame:
    """Return what the model scores on each class.

    Args:
        samples: The images.
        names: Names of the C classes.
        conf: The operating point; counts, precision, recall and F1 are of the detections with at least this score.
        evaluation: Of the same samples, if it is there already.

    Returns:
        C rows, in the order of `names`: class, n_objects, n_detections, precision (nan without detections), recall and
        AP (nan without objects), f1 (nan without either), ap50, ap50_95; missed (objects that no detection of any
        class lies on) and background (detections that lie on no object) as in the confusion matrix. Right is what
        overlaps an object of its class by IoU .5.

    Raises:
        ArgumentError: A class id is not in 0 to C - 1.
    """
    n_classes = len(names)
    scores = evaluation or evaluate(samples, n_classes=n_classes)
    outcomes = find_outcomes(samples, n_classes=n_classes, conf=conf)
    matrix = confusion_matrix(samples, n_classes=n_classes, conf=conf)
    n_objects = np.bincount(outcomes.gt_class, minlength=n_classes)
    n_detections = np.bincount(outcomes.class_id, minlength=n_classes)
    n_right = np.bincount(outcomes.class_id[outcomes.right], minlength=n_classes)
    return pd.DataFrame(
        {
            "class": list(names),
            "n_objects": n_objects,
            "n_detections": n_detections,
            "precision": _share(n_right, n_detections),
            "recall": _share(n_right, n_objects),
            "f1": _share(2 * n_right, n_detections + n_objects),
            "ap50": scores.ap[:, 0],
            "ap50_95": scores.ap_per_class,
            "missed": matrix[:-1, -1],
            "background": matrix[-1, :-1],
        }
    )


def _share(part: Ints, whole: Ints) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
