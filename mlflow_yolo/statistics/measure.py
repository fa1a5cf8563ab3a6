"""What a measure is: sums of a block on the device, statistics from them on the host.

To add statistics, write a module with a `Measure` and name it in one of the tuples of `collector`:

    def sums(stretch: Stretch) -> tuple[Tensor, ...]:
        return (stretch.reduce.dot(stretch.weights, stretch.gradient),)

    def statistics(sums: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"decay_cosine": sums["weights_dot_gradient"] / (sums["after_l2"] * sums["gradient_l2"])}

    DECAY = Measure("weights", ("weights_dot_gradient",), sums, statistics)

Nothing else has to change: files, summaries and reports take what they find in the grids.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mlflow_yolo.statistics.stretch import Stretch
from mlflow_yolo.statistics.vectors import Floats

COMMON_SUMS = ("gradient_l2", "weight_total", "weight_l2", "after_total", "after_l2")
"""What every `statistics` finds beside the sums of all measures: the norm of the gradient, and sum and norm of the
weights before and after the step; further `gradient_elements` and `weight_elements`, how many there are behind the
sums. A measure of a whole epoch finds `after_total` and `after_l2` of the last step, `weight_elements`, and for the
finite sampled steps `n_steps` and `gradient_square_mean`, the mean of the squared norm."""


@dataclass(frozen=True)
class Measure:
    """One kind of statistics.

    Attributes:
        kind: First part of the key: `gradients`, `weights`.
        sums: Names of what `reduce` returns; no two measures share one.
        reduce: Returns one tensor a sum, each from a method of `stretch.reduce`, without waiting for the device. The
            stretch holds the step's gradient, update and the weights after it; its vectors must not be changed.
        statistics: Returns the statistics by name, each (T, B) over steps and blocks, from the sums by name, each
            (T, B). NaN where one is not defined: it is then left out.
    """

    kind: str
    sums: tuple[str, ...]
    reduce: Callable[[Stretch], tuple[Tensor, ...]]
    statistics: Callable[[Mapping[str, Floats]], dict[str, Floats]]
