"""What a measure of one optimizer step is: sums on the device, statistics on the host.

To add statistics, write a module with a class like `gradients.Gradients` and name it in `collector.MEASURES`.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

from torch import Tensor

from mlflow_yolo.statistics.vectors import Floats

Source = Literal["gradients", "weights", "updates"]
"""What a block's vector holds: gradients before clipping, divided by the loss scale; weights before the step; weights
after the step minus weights before it."""


class Measure(Protocol):
    """Reduces every block's vectors at a sampled step and turns the sums of an epoch into named statistics."""

    @property
    def kind(self) -> str:
        """First part of the metric key: `gradients`, `weights`."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The vectors that `reduce` is called with."""

    def reduce(self, source: Source, block: int, vector: Tensor) -> Tensor:
        """Return (K,) sums on the vector's device, without waiting for the device.

        Args:
            source: What the vector holds.
            block: The block it belongs to; measures with a memory (drift, gradient noise) key it by block.
            vector: (N,) the block's trainable parameters one after the other, N > 0; not kept by the caller for
                gradients and updates, read-only for weights.
        """

    def statistics(self, sums: Mapping[Source, Floats], n_elements: Floats) -> dict[str, Floats]:
        """Return the statistics by name, each (T, B), from the (T, B, K) sums of T steps and (T, B) counts."""
