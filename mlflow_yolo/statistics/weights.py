"""Weight statistics of a block: its weights before the step, and the size and the direction of the step.

The update is measured from the weights themselves. The learning rate times the gradient is wrong for every optimizer
that Ultralytics picks: AdamW divides by the second moment, MuSGD orthogonalises.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.stretch import Stretch
from mlflow_yolo.statistics.vectors import Floats


def update_sums(stretch: Stretch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm of the update and its inner products with the gradient and with the weights after the step."""
    reduce, update = stretch.reduce, stretch.update
    return reduce.l2(update), reduce.dot(update, stretch.gradient), reduce.dot(update, stretch.weights)


def update_ratio(update_l2: Floats, weight_l2: Floats) -> Floats:
    """Return ||w_after - w_before|| / ||w_before||, the relative size of one optimizer step.

    Args:
        update_l2: L2 norm of the update, any shape.
        weight_l2: L2 norm of the weights before the step, same shape.

    Returns:
        Dimensionless, >= 0; near 1e-3 is usual. Infinite where only the weight norm is 0, NaN where both are.

    Raises:
        ShapeError: The shapes differ.

    Source: CS231n notes, "Ratio of weights:updates".
    """
    if update_l2.shape != weight_l2.shape:
        raise ShapeError(f"update_l2 has shape {update_l2.shape} and weight_l2 {weight_l2.shape}: they must be equal.")
    with np.errstate(divide="ignore", invalid="ignore"):
        return update_l2 / weight_l2


def cosine(dot: Floats, left_l2: Floats, right_l2: Floats) -> Floats:
    """Return the cosine between two vectors from their inner product and norms, in [-1, 1]; NaN if one is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(dot / (left_l2 * right_l2), -1.0, 1.0)


def angular_update(update_l2: Floats, update_dot_after: Floats, weight_l2: Floats) -> Floats:
    """Return the angle between the weights before and after a step.

    A convolution followed by normalisation computes the same for weights of any length, so that of its update only the
    turn counts. It is taken from the part of the update that is orthogonal to the weights: the arc cosine of two almost
    parallel vectors would be rounding noise.

    Args:
        update_l2: L2 norm of the update, any shape.
        update_dot_after: Inner product of the update and the weights after it, same shape.
        weight_l2: L2 norm of the weights before the step, same shape.

    Returns:
        Radians, in [0, pi]; NaN where the weights were all 0.

    Source: ours; the quantity is that of Wan et al., "Spherical Motion Dynamics" (2021).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (update_dot_after - update_l2**2) / weight_l2
        across = np.sqrt(np.maximum(update_l2**2 - along**2, 0.0))
        return np.where(weight_l2 > 0, np.arctan2(across, weight_l2 + along), np.nan)


def weight_statistics(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the weight statistics by name, each in the shape of the sums.

    Args:
        sums: `weight_total`, `weight_l2` and their number of elements `weight_elements` before the step;
            `update_l2`, `update_dot_gradient`, `update_dot_after` of the step; `gradient_l2`.

    Returns:
        `mean`, `std` (over the elements, population), `l2`; `update_l2`, `update_ratio`, `angular_update`, and
        `update_cosine`: the cosine between the update and the negative gradient before clipping, 1 for plain gradient
        descent, undefined without an update. Empty input gives empty arrays.
    """
    n, l2, update_l2 = sums["weight_elements"], sums["weight_l2"], sums["update_l2"]
    with np.errstate(invalid="ignore", over="ignore"):
        mean = sums["weight_total"] / n
        std = np.sqrt(np.maximum(l2**2 / n - mean**2, 0.0))
    return {
        "mean": mean,
        "std": std,
        "l2": l2,
        "update_l2": update_l2,
        "update_ratio": update_ratio(update_l2, l2),
        "update_cosine": cosine(-sums["update_dot_gradient"], update_l2, sums["gradient_l2"]),
        "angular_update": angular_update(update_l2, sums["update_dot_after"], l2),
    }


WEIGHTS = Measure("weights", ("update_l2", "update_dot_gradient", "update_dot_after"), update_sums, weight_statistics)
