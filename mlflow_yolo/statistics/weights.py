"""Weight statistics of a block: mean, standard deviation, L2 norm and the relative size of the optimizer's update.

The update is measured from the weights themselves. The learning rate times the gradient is wrong for every optimizer
that Ultralytics picks: AdamW divides by the second moment, MuSGD orthogonalises.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.statistics.measure import Source
from mlflow_yolo.statistics.vectors import Floats


def weight_sums(vector: Tensor) -> Tensor:
    """Return (2,) sum and L2 norm of a block's weights (N,), on their device."""
    return torch.stack([vector.sum(), torch.linalg.vector_norm(vector)])


def update_sums(vector: Tensor) -> Tensor:
    """Return (1,) L2 norm of a block's update (N,), on its device."""
    return torch.stack([torch.linalg.vector_norm(vector)])


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


def weight_statistics(weights: Floats, updates: Floats, n_elements: Floats) -> dict[str, Floats]:
    """Return the weight statistics by name.

    Args:
        weights: (..., 2) of `weight_sums`, before the step.
        updates: (..., 1) of `update_sums`.
        n_elements: (...) number of elements N behind each of them, > 0.

    Returns:
        `mean`, `std` (over the elements, population), `l2`, `update_ratio`. Empty input gives empty arrays.

    Raises:
        ShapeError: The axes do not fit together.
    """
    if weights.shape != (*n_elements.shape, 2) or updates.shape != (*n_elements.shape, 1):
        expected = f"{(*n_elements.shape, 2)} and {(*n_elements.shape, 1)}"
        raise ShapeError(f"weights has shape {weights.shape} and updates {updates.shape}, expected {expected}.")
    total, l2 = np.moveaxis(weights, -1, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = total / n_elements
        std = np.sqrt(np.maximum(l2**2 / n_elements - mean**2, 0.0))
    return {"mean": mean, "std": std, "l2": l2, "update_ratio": update_ratio(updates[..., 0], l2)}


class Weights:
    """The measure `weights`."""

    kind = "weights"
    sources: tuple[Source, ...] = ("weights", "updates")

    def reduce(self, source: Source, block: int, vector: Tensor) -> Tensor:
        """Return `weight_sums` before the step and `update_sums` after it."""
        return weight_sums(vector) if source == "weights" else update_sums(vector)

    def statistics(self, sums: Mapping[Source, Floats], n_elements: Floats) -> dict[str, Floats]:
        """Return `weight_statistics`."""
        return weight_statistics(sums["weights"], sums["updates"], n_elements)
