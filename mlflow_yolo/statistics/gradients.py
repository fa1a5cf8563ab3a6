"""Gradient statistics of a block: L1, L2, root mean square, signed mean, mean magnitude, maximum and variance.

All of them are of the gradient that the optimizer step starts from: accumulated, divided by the loss scale, before
clipping. The trainer clips to norm 10 as a rule and not as an exception (a small run had norm 1290), so gradients read
after clipping have lost their size.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.stretch import Stretch
from mlflow_yolo.statistics.vectors import Floats


def gradient_sums(stretch: Stretch) -> tuple[Tensor, Tensor, Tensor]:
    """Return sum, L1 norm and largest magnitude; the L2 norm is common to all measures."""
    return stretch.reduce.total(stretch.gradient), *stretch.reduce.l1_and_max(stretch.gradient)


def gradient_statistics(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the gradient statistics by name, each in the shape of the sums.

    Args:
        sums: `gradient_total`, `gradient_l1`, `gradient_l2`, `gradient_max`, and the number of elements N > 0 behind
            them, `gradient_elements`.

    Returns:
        `l1` = sum|g|, `l2` = sqrt(sum g^2), `rms` = l2 / sqrt(N) (comparable between blocks of any size), `mean` =
        sum g / N (signed), `mean_abs` = l1 / N, `max_abs` = max|g|, `variance` = l2^2 / N - mean^2 (over the elements,
        population). Empty input gives empty arrays.
    """
    n, l1, l2 = sums["gradient_elements"], sums["gradient_l1"], sums["gradient_l2"]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # non-finite gradients are data here
        mean = sums["gradient_total"] / n
        variance = np.maximum(l2**2 / n - mean**2, 0.0)  # float32 sums may cancel to slightly below 0
        mean_abs, rms = l1 / n, l2 / np.sqrt(n)
    return {
        "l1": l1,
        "l2": l2,
        "rms": rms,
        "mean": mean,
        "mean_abs": mean_abs,
        "max_abs": sums["gradient_max"],
        "variance": variance,
    }


def clip_coefficient(norm: Floats, *, max_norm: float = 10.0) -> Floats:
    """Return what clipping multiplies the gradients with: min(1, max_norm / (norm + 1e-6)); NaN for a NaN norm.

    Args:
        norm: Global gradient L2 norm before clipping, any shape.
        max_norm: The trainer's limit; Ultralytics uses 10.

    Source: `torch.nn.utils.clip_grad_norm_`.
    """
    return np.minimum(1.0, max_norm / (np.asarray(norm, dtype=np.float64) + 1e-6))


GRADIENTS = Measure("gradients", ("gradient_total", "gradient_l1", "gradient_max"), gradient_sums, gradient_statistics)
