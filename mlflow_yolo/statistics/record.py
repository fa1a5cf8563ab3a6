"""What the steps of an epoch leave: sums that stay on the device until somebody asks, then rows on the host."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from mlflow_yolo.statistics.epoch import Grid
from mlflow_yolo.statistics.global_norm import global_grids, nonfinite_steps
from mlflow_yolo.statistics.measure import COMMON_SUMS, Measure
from mlflow_yolo.statistics.stretch import Layout
from mlflow_yolo.statistics.table import Row, Table
from mlflow_yolo.statistics.vectors import Floats, Ints, to_host


class EpochRecord:
    """The steps of one epoch."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        """Begin with no steps; `measures` are those of a sampled step."""
        self._measures = measures
        self._names = (*COMMON_SUMS, *(name for measure in measures for name in measure.sums))
        self._pending: list[tuple[int, Layout, Ints, Tensor]] = []
        self._rows: list[Row] = []
        self._pending_wholes: list[tuple[int, Tensor]] = []
        self._wholes: list[tuple[int, Floats]] = []

    @property
    def n_samples(self) -> int:
        """The number of sampled steps."""
        return len(self._rows) + len(self._pending)

    @property
    def n_steps(self) -> int:
        """The number of steps with any gradient."""
        return len(self._wholes) + len(self._pending_wholes)

    def add_whole(self, step: int, sums: Tensor) -> None:
        """Add the `global_sums` of a step."""
        self._pending_wholes.append((step, sums))

    def add_sample(self, step: int, layout: Layout, gradient_elements: Ints, sums: Tensor) -> None:
        """Add the sums of a sampled step, (B, K): `COMMON_SUMS` and those of the measures."""
        self._pending.append((step, layout, gradient_elements, sums))

    def flush(self) -> None:
        """Bring what is still on the device to the host, in one copy."""
        host = iter(to_host([sums for *_, sums in self._pending] + [sums for _, sums in self._pending_wholes]))
        self._rows += [Row(step, layout.blocks, n, layout.sizes, next(host)) for step, layout, n, _ in self._pending]
        self._wholes += [(step, next(host)) for step, _ in self._pending_wholes]
        self._pending, self._pending_wholes = [], []

    def grids(self, start: int, stop: int, *, max_norm: float) -> tuple[tuple[Grid, ...], tuple[tuple[int, int], ...]]:
        """Return the grids of the steps from `start` to before `stop`, and all non-finite steps before `stop`.

        Of the whole model, there are rows of the sampled steps and of every non-finite one.
        """
        self.flush()
        finished = [(step, sums) for step, sums in self._wholes if step < stop]
        steps = np.array([step for step, _ in finished], dtype=np.int64)
        wholes = np.array([sums for _, sums in finished]).reshape(-1, 4)
        bad = nonfinite_steps(steps, wholes)
        rows = [row for row in self._rows if start <= row.step < stop]
        kept = np.isin(steps, [row.step for row in rows] + [step for step, _ in bad if step >= start])
        found = Table.of(rows, self._names, dict(bad)).grids(self._measures)
        found += global_grids(steps[kept], wholes[kept], max_norm=max_norm)
        return tuple(grid for grid in found if grid.measured.any()), bad

    def epoch_sums(self, first_sample: int, blocks: Ints, nonfinite: Mapping[int, int]) -> dict[str, Floats]:
        """Return `Table.epoch_sums` of these blocks over the samples from `first_sample` on, which must have them."""
        self.flush()
        return Table.of(self._rows[first_sample:], self._names, nonfinite, blocks=blocks).epoch_sums()
