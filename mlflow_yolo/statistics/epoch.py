"""One epoch's statistics on the host: what was measured, at which steps, of which blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mlflow_yolo.statistics.histogram import Histograms
from mlflow_yolo.statistics.vectors import Floats, Ints

NO_BLOCK = -1
"""Block index of what belongs to the whole model."""

Key = tuple[str, str, int]
"""Kind, statistic, block index: `("gradients", "l2", 4)`."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The statistics of one kind, by step and block.

    Attributes:
        kind: `gradients`, `weights`, `activations` or `global`.
        steps: (T,) optimizer steps within the epoch, from 0, ascending.
        blocks: (B,) block indices, ascending; `NO_BLOCK` for the whole model.
        values: By statistic, (T, B); meaningless where not measured.
        measured: (T, B) False where there is nothing to report, as for a frozen block.
        counted: (T,) whether the step takes part in the epoch's means; False for one with non-finite gradients.
        once: Whether it was measured once, at the end of the epoch.
    """

    kind: str
    steps: Ints
    blocks: Ints
    values: Mapping[str, Floats]
    measured: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    once: bool = False


@dataclass(frozen=True, eq=False)
class EpochStatistics:
    """Everything that was measured in one epoch.

    Attributes:
        epoch: The epoch, as the trainer counts.
        names: Block names by index.
        grids: One or more for each kind; what two of them hold of a kind differs in steps, blocks or statistics.
        histograms: By kind, `weights`, `ema_weights` and `gradients`; a kind that was not sampled is absent.
        n_steps: Number of optimizer steps in the epoch.
        nonfinite_steps: Every step with a NaN or infinite gradient, and the block in which the backward pass met it
            first, that is the deepest one (`NO_BLOCK`: a parameter outside all blocks).
        frozen: Names of the blocks that have parameters but none that trains; they have no rows.
        without_gradient: Names of trainable parameters that had no gradient at any step.
    """

    epoch: int
    names: Mapping[int, str]
    grids: tuple[Grid, ...] = ()
    histograms: Mapping[str, Histograms] = field(default_factory=dict)
    n_steps: int = 0
    nonfinite_steps: tuple[tuple[int, int], ...] = ()
    frozen: tuple[str, ...] = ()
    without_gradient: tuple[str, ...] = ()

    @property
    def epoch_only(self) -> "EpochStatistics":
        """These statistics without the rows of single steps: what is still to be stored once those have been."""
        return replace(self, grids=tuple(grid for grid in self.grids if grid.once))

    def with_block_values(self, kind: str, values: Mapping[int, Mapping[str, float]]) -> "EpochStatistics":
        """Return these statistics and those of another kind that was measured once, after the epoch's last step.

        Args:
            kind: For example `activations`.
            values: By block index, the statistics by name; a statistic may be absent for some blocks.
        """
        if not values:
            return self
        blocks = sorted(values)
        names = dict.fromkeys(name for block in blocks for name in values[block])
        step, counted = np.array([max(self.n_steps - 1, 0)]), np.array([True])
        # One grid a statistic: they are measured of different blocks (no off fraction without an activation).
        grids = []
        for name in names:
            present = [block for block in blocks if name in values[block]]
            column = np.array([[values[block][name] for block in present]], dtype=np.float64)
            measured = np.ones(column.shape, dtype=bool)
            grids.append(Grid(kind, step, np.array(present), {name: column}, measured, counted, once=True))
        return replace(self, grids=(*self.grids, *grids))

    def summary(self) -> dict[Key, float]:
        """Return the mean over the sampled steps with finite gradients, by kind, statistic and block index.

        Statistics that were measured at no such step are absent; statistics of the whole model have block `NO_BLOCK`.
        """
        return {
            (grid.kind, name, int(block)): float(column[used].mean())
            for grid in self.grids
            for name, values in grid.values.items()
            for block, column, used in zip(
                grid.blocks, values.T, (grid.measured & grid.counted[:, None]).T, strict=True
            )
            if used.any()
        }
