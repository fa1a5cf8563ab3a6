"""How much a block's gradient changes from step to step, against what stays: noise, signal to noise, noise scale.

With g_t the gradients of the T finite sampled steps of an epoch and gbar their mean, all three follow from one vector
that the gradients are added to and from the norms that are known anyway.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.stretch import Stretch
from mlflow_yolo.statistics.vectors import Floats


def noise_sums(stretch: Stretch) -> tuple[Tensor]:
    """Return the norm of the summed gradients."""
    return (stretch.reduce.l2(stretch.gradient_sum),)


def noise_statistics(sums: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the statistics by name; all NaN below two steps.

    Args:
        sums: `gradient_sum_l2` = ||sum g_t||, `gradient_square_mean` = mean ||g_t||^2 and `n_steps` = T, any one shape.

    Returns:
        `noise` = mean ||g_t||^2 - ||gbar||^2, the trace of the covariance; `gsnr` = ||gbar||^2 / (noise / T), near 1
        when there is nothing but noise; `noise_scale` = noise / ||gbar||^2, the number of such steps whose average
        would have as much signal as noise. Infinite where only the divisor is 0.

    Source: McCandlish et al., "An Empirical Model of Large-Batch Training" (2018), section 2.2, for the scale.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(sums["n_steps"] > 1, sums["n_steps"], np.nan)
        signal = (sums["gradient_sum_l2"] / steps) ** 2
        noise = np.maximum(sums["gradient_square_mean"] - signal, 0.0)
        return {"noise": noise, "gsnr": signal / (noise / steps), "noise_scale": noise / signal}


GRADIENT_NOISE = Measure("gradients", ("gradient_sum_l2",), noise_sums, noise_statistics)
