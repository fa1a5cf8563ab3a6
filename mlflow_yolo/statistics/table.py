"""The sums of an epoch's sampled steps on the host, and the grids of statistics from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.statistics.epoch import NO_BLOCK, Grid
from mlflow_yolo.statistics.measure import Measure
from mlflow_yolo.statistics.vectors import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Row:
    """The sums of one sampled step.

    Attributes:
        step: The optimizer step within the epoch.
        blocks: (B,) block indices, ascending, those that train at this step.
        gradient_elements: (B,) elements with a gradient; a block with none is not measured at this step.
        weight_elements: (B,) trainable elements.
        sums: (B, K) in the order of the names that go with the table.
    """

    step: int
    blocks: Ints
    gradient_elements: Ints
    weight_elements: Ints
    sums: Floats


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of several steps as arrays over all blocks that occur.

    Attributes:
        steps: (T,) ascending.
        blocks: (B,) ascending.
        sums: By name, (T, B); further `gradient_elements` and `weight_elements`.
        measured: (T, B) whether the block had a gradient.
        counted: (T,) whether the gradients were finite.
    """

    steps: Ints
    blocks: Ints
    sums: Mapping[str, Floats]
    measured: Bools
    counted: Bools

    @classmethod
    def of(
        cls, rows: Sequence[Row], names: Sequence[str], nonfinite: Mapping[int, int], *, blocks: Ints | None = None
    ) -> "Table":
        """Return the table of rows in the order of steps; what belongs to no block is left out.

        Args:
            rows: The steps.
            names: What the sums of the rows are.
            nonfinite: By step, the block with a non-finite gradient.
            blocks: All blocks of the rows and perhaps more, ascending; None for those of the rows.
        """
        if blocks is None:
            blocks = np.array(sorted({int(b) for row in rows for b in row.blocks} - {NO_BLOCK}), dtype=np.int64)
        values = np.full((len(names) + 2, len(rows), len(blocks)), np.nan)
        values[:2] = 0.0
        for t, row in enumerate(rows):
            kept = row.blocks != NO_BLOCK
            there = np.searchsorted(blocks, row.blocks[kept])
            values[0, t, there] = row.gradient_elements[kept]
            values[1, t, there] = row.weight_elements[kept]
            values[2:, t, there] = row.sums[kept].T
        steps = np.array([row.step for row in rows], dtype=np.int64)
        counted = np.array([row.step not in nonfinite for row in rows], dtype=bool)
        sums = dict(zip(("gradient_elements", "weight_elements", *names), values, strict=True))
        return cls(steps, blocks, sums, values[0] > 0, counted)

    def grids(self, measures: Sequence[Measure]) -> list[Grid]:
        """Return the statistics of each measure at every step; none for a table without rows."""
        if not len(self.steps):
            return []
        place = self.steps, self.blocks, self.measured, self.counted
        return [grid for measure in measures for grid in grids(measure.kind, measure.statistics(self.sums), *place)]

    def epoch_sums(self) -> dict[str, Floats]:
        """Return `n_steps` and `gradient_square_mean` over the finite steps, each (1, B); see `measure`."""
        used = self.measured & self.counted[:, None]
        n_steps = used.sum(axis=0, keepdims=True).astype(np.float64)
        squares = np.where(used, self.sums["gradient_l2"], 0.0) ** 2
        return {
            "n_steps": n_steps,
            "gradient_square_mean": squares.sum(axis=0, keepdims=True) / np.maximum(n_steps, 1.0),
        }


def grids(
    kind: str,
    values: Mapping[str, Floats],
    steps: Ints,
    blocks: Ints,
    measured: Bools,
    counted: Bools,
    *,
    once: bool = False,
) -> list[Grid]:
    """Return one grid of what is defined wherever it was measured, and one of each statistic that is not (NaN).

    What is NaN at a step with non-finite gradients stays: such a step does not count anyhow.
    """
    undefined = {name: np.isnan(v) & measured & counted[:, None] for name, v in values.items()}
    whole = {name: v for name, v in values.items() if not undefined[name].any()}
    found = [Grid(kind, steps, blocks, whole, measured, counted, once)] if whole else []
    partly = ((name, measured & ~undefined[name]) for name in values if name not in whole)
    return found + [
        Grid(kind, steps, blocks, {name: values[name]}, there, counted, once) for name, there in partly if there.any()
    ]
