"""How far a block's weights have moved from those that the training started with, in length and in direction."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.stretch import Stretch
from mlflow_yolo.statistics.vectors import Floats
from mlflow_yolo.statistics.weights import cosine


def drift_sums(stretch: Stretch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distance from the reference, the inner product with it, and its norm."""
    reduce, weights, reference = stretch.reduce, stretch.weights, stretch.reference
    return reduce.distance(weights, reference), reduce.dot(weights, reference), stretch.reference_l2


def drift_statistics(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return `drift` = ||w - w0|| / ||w0|| and `drift_cosine` = cos(w, w0), after the step; NaN where w0 is all 0.

    Args:
        sums: `drift_l2`, `drift_dot`, `reference_l2` and `after_l2`, any one shape.
    """
    reference = sums["reference_l2"]
    with np.errstate(divide="ignore", invalid="ignore"):
        drift = np.where(reference > 0, sums["drift_l2"] / reference, np.nan)
    return {"drift": drift, "drift_cosine": cosine(sums["drift_dot"], sums["after_l2"], reference)}


DRIFT = Measure("weights", ("drift_l2", "drift_dot", "reference_l2"), drift_sums, drift_statistics)
