"""From the tidy table of block statistics to arrays that can be drawn: steps by blocks, epochs by blocks, columns.

The table has columns epoch, step, block (-1: the whole model), name, kind, statistic, value; rows of kind `state` say
which blocks were frozen in an epoch (`frozen`); `nonfinite_block` of kind `global` has, for every step with a NaN or
infinite gradient, the block in which the backward pass met it first.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.figures.seed_range import Floats

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STATE = "state"
NONFINITE = "nonfinite_block"


@dataclass(frozen=True, eq=False)
class BlockSteps:
    """One statistic of every block at every sampled step.

    Attributes:
        kind: For example `gradients`.
        statistic: For example `l2`.
        epochs: (T,) epoch of each sampled step, ascending.
        steps: (T,) step within its epoch, from 0, ascending within the epoch.
        blocks: (B,) block indices, ascending.
        values: (T, B), NaN where nothing was measured.
        counted: (T,) False for a step with non-finite gradients, which takes no part in means.
    """

    kind: str
    statistic: str
    epochs: Ints
    steps: Ints
    blocks: Ints
    values: Floats
    counted: Bools

    def epoch_means(self) -> tuple[Ints, Floats]:
        """Return the epochs (E,) and the means (E, B) over the finite values of their counted steps; NaN without."""
        epochs, first = np.unique(self.epochs, return_index=True)
        used = np.isfinite(self.values) & self.counted[:, None]
        return epochs, _means(self.values, used, first)


@dataclass(frozen=True, eq=False)
class Columns:
    """Steps gathered into columns of a picture.

    Attributes:
        first: (C,) index of each column's first step.
        mean: (C, B) means of the finite values; infinite where there is none but an infinite one, else NaN.
        low: (C, B) smallest finite value, NaN without.
        high: (C, B) largest finite value, NaN without.
    """

    first: Ints
    mean: Floats
    low: Floats
    high: Floats


def block_steps(frame: pd.DataFrame) -> list[BlockSteps]:
    """Return every statistic of the table, in the order in which they first appear.

    Left out is what has functions of its own here: rows of kind `state`, and `nonfinite_block`.
    """
    excluded = {(epoch, step) for epoch, step, _ in nonfinite_steps(frame)}
    # Positions rather than groups: a table of 5 million rows is not to be in memory twice.
    positions: Any = frame.groupby(["kind", "statistic"], observed=True).indices
    measured = [(key, rows) for key, rows in positions.items() if key[0] != STATE and key[1] != NONFINITE]
    return [
        _block_steps(str(kind), str(statistic), frame.take(rows), excluded)
        for (kind, statistic), rows in sorted(measured, key=lambda item: int(item[1][0]))
    ]


def frozen_blocks(frame: pd.DataFrame) -> dict[int, frozenset[int]]:
    """Return for each block that was ever frozen the epochs in which it was."""
    rows = frame[(frame["kind"] == STATE) & (frame["statistic"] == "frozen")]
    return {int(str(block)): frozenset(map(int, epochs)) for block, epochs in rows.groupby("block")["epoch"]}


def nonfinite_steps(frame: pd.DataFrame) -> list[tuple[int, int, int]]:
    """Return epoch, step and first non-finite block of every step whose gradients were NaN or infinite."""
    rows = frame.loc[frame["statistic"] == NONFINITE, ["epoch", "step", "value"]]
    return sorted({(int(e), int(s), int(b)) for e, s, b in rows.itertuples(index=False)})


def block_names(frame: pd.DataFrame) -> dict[int, str]:
    """Return the names of all blocks in the table by index, ascending; the whole model is no block."""
    known = frame.loc[frame["block"] >= 0, ["block", "name"]].drop_duplicates().sort_values("block")
    return {int(block): str(name) for block, name in known.itertuples(index=False)}


def gather(table: BlockSteps, *, most: int) -> Columns:
    """Return the steps in at most `most` columns, each of the same number of consecutive steps (the last of fewer)."""
    per_column = max(1, -(-len(table.steps) // most))
    first = np.arange(0, len(table.steps), per_column)
    finite = np.isfinite(table.values)
    infinite = np.add.reduceat(np.isinf(table.values), first, axis=0, dtype=np.int64) > 0
    mean = _means(table.values, finite, first)
    low = np.minimum.reduceat(np.where(finite, table.values, np.inf), first, axis=0)
    high = np.maximum.reduceat(np.where(finite, table.values, -np.inf), first, axis=0)
    empty = np.isnan(mean)
    mean = np.where(empty & infinite, np.inf, mean)
    return Columns(first, mean, np.where(empty, np.nan, low), np.where(empty, np.nan, high))


def within_epochs(table: BlockSteps, epochs: Ints, *, per_epoch: int) -> Floats:
    """Return (B, E * per_epoch) means of the finite values of counted steps, `per_epoch` columns to an epoch.

    An epoch's steps are spread over its columns by their place among its sampled steps; a column that gets none has
    the value of the one before it. All NaN in an epoch without values.
    """
    result = np.full((len(table.blocks), len(epochs), per_epoch), np.nan)
    used = np.isfinite(table.values) & table.counted[:, None]
    for e, epoch in enumerate(epochs):
        rows = np.flatnonzero(table.epochs == epoch)
        if len(rows):
            place = np.arange(per_epoch) * len(rows) // per_epoch
            starts, column = np.unique(place, return_inverse=True)
            result[:, e] = _means(table.values[rows], used[rows], starts)[column].T
    return result.reshape(len(table.blocks), -1)


def _block_steps(kind: str, statistic: str, rows: pd.DataFrame, excluded: set[tuple[int, int]]) -> BlockSteps:
    moments = rows["epoch"].to_numpy(np.int64) << 32 | rows["step"].to_numpy(np.int64)
    distinct, line = np.unique(moments, return_inverse=True)
    blocks, column = np.unique(rows["block"].to_numpy(np.int64), return_inverse=True)
    values = np.full((len(distinct), len(blocks)), np.nan)
    values[line, column] = rows["value"].to_numpy(np.float64)
    epochs, steps = distinct >> 32, distinct & 0xFFFFFFFF
    counted = np.array(
        [moment not in excluded for moment in zip(epochs.tolist(), steps.tolist(), strict=True)], dtype=np.bool_
    )
    return BlockSteps(kind, statistic, epochs, steps, blocks, values, counted)


def _means(values: Floats, used: Bools, first: Ints) -> Floats:
    """Return the means of the used values of consecutive rows, one line for each of `first`; NaN where none is used."""
    if not len(first):
        return np.empty((0, values.shape[1]))
    n_used = np.add.reduceat(used, first, axis=0, dtype=np.int64)
    totals = np.add.reduceat(np.where(used, values, 0.0), first, axis=0)
    means: Floats = np.divide(totals, n_used, out=np.full_like(totals, np.nan), where=n_used > 0)
    return means
