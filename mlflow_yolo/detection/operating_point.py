"""The confidence at which a detector is looked at: the one with the best mean F1."""

from collections.abc import Sequence

from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import Sample


def operating_confidence(samples: Sequence[Sample], *, n_classes: int) -> float:
    """Return the confidence from which the mean F1 at IoU .5 is highest, the highest of equals.

    Args:
        samples: The images.
        n_classes: Number of classes.

    Returns:
        In [0, 1]; 0 where nothing is right.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1.
    """
    return evaluate(samples, n_classes=n_classes).conf
