"""The pictures of a run's block statistics for MLflow's image grid, from the files written so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.figures.block_steps import BlockSteps, block_names, block_steps, frozen_blocks, within_epochs
from mlflow_yolo.figures.blocks_over_epochs import blocks_over_epochs
from mlflow_yolo.figures.encode import rgb_array
from mlflow_yolo.figures.histogram_ridges import histogram_ridges
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.statistics.storage import HISTOGRAM_FILE, TABLE_FILE, Arrays, read_histograms, read_table

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_MOST_COLUMNS = 240
"""Of a heat map by steps: with more, a column is narrower than two pixels."""


@dataclass(frozen=True)
class _HeatMap:
    """How one statistic is drawn.

    Attributes:
        kind: Of the statistic.
        statistic: Its name in the table.
        title: Its name in the title.
        log10: Whether colours are logarithmic.
    """

    kind: str
    statistic: str
    title: str
    log10: bool


_HEAT_MAPS = {
    "gradient_l2": _HeatMap("gradients", "l2", "gradient L2 before clipping", True),
    "update_ratio": _HeatMap("weights", "update_ratio", "update to weight ratio", True),
    "off_fraction": _HeatMap("activations", "off_fraction", "share of activations that are off", False),
}
_BY_STEP = ("gradient_l2", "update_ratio")


def draw_statistics(directory: Path) -> dict[str, Pixels]:
    """Return the pictures of what a `StatisticsWriter` has written to `directory`, by name.

    Returns:
        (H, W, 3) uint8 RGB: heat maps `gradient_l2`, `update_ratio` and `off_fraction` by block and epoch, the first
        two also by step (`gradient_l2_steps`), and `weight_histograms`. What was not measured has no picture.

    Raises:
        WorkError: A file is missing or damaged.
    """
    wanted = [("statistic", "in", [*(drawn.statistic for drawn in _HEAT_MAPS.values()), "frozen", "nonfinite_block"])]
    frame = read_table(directory / TABLE_FILE, rows=wanted)
    tables = {(table.kind, table.statistic): table for table in block_steps(frame)}
    pictures: dict[str, Pixels] = {}
    for name, drawn in _HEAT_MAPS.items():
        if (table := tables.get((drawn.kind, drawn.statistic))) is not None:
            pictures[name] = rgb_array(_heat_map(table, drawn, frame, per_epoch=1))
            if name in _BY_STEP and (per_epoch := _columns_per_epoch(table)) > 1:
                pictures[f"{name}_steps"] = rgb_array(_heat_map(table, drawn, frame, per_epoch=per_epoch))
    arrays = read_histograms(directory / HISTOGRAM_FILE)
    if arrays["weights"].any():
        pictures["weight_histograms"] = rgb_array(_ridges(arrays, frame))
    return pictures


def _columns_per_epoch(table: BlockSteps) -> int:
    """Return how many columns an epoch gets: as many as it has samples, while all epochs fit."""
    _, n_samples = np.unique(table.epochs, return_counts=True)
    return int(min(n_samples.max(), max(1, _MOST_COLUMNS // len(n_samples))))


def _heat_map(table: BlockSteps, drawn: _HeatMap, frame: pd.DataFrame, *, per_epoch: int) -> Figure:
    """Draw the blocks that were measured or, for what only training blocks have, frozen."""
    resting = frozen_blocks(frame) if drawn.kind != "activations" else {}
    names = {b: name for b, name in block_names(frame).items() if b in resting or b in table.blocks}
    epochs = np.arange(table.epochs.min(), table.epochs.max() + 1)
    found = within_epochs(table, epochs, per_epoch=per_epoch)
    values = np.full((len(names), found.shape[1]), np.nan)
    rows = {block: row for row, block in enumerate(names)}
    values[[rows[int(block)] for block in table.blocks]] = found
    return blocks_over_epochs(
        values,
        blocks=list(names.values()),
        statistic=drawn.title,
        frozen=_frozen_cells(resting, list(names), epochs, per_epoch=per_epoch) & np.isnan(values),
        log10=drawn.log10,
        first_epoch=int(epochs[0]),
        per_epoch=per_epoch,
    )


def _frozen_cells(
    resting: Mapping[int, frozenset[int]], blocks: list[int], epochs: Ints, *, per_epoch: int
) -> npt.NDArray[np.bool_]:
    cells = [[int(epoch) in resting.get(block, frozenset()) for epoch in epochs] for block in blocks]
    return np.repeat(np.array(cells, dtype=np.bool_).reshape(len(blocks), len(epochs)), per_epoch, axis=1)


def _ridges(arrays: Arrays, frame: pd.DataFrame) -> Figure:
    negative_first = arrays["weights"][:, :, ::-1]
    filled = set(arrays["blocks"][arrays["weights"].any(axis=(0, 2, 3))].tolist())
    names, resting = block_names(frame), frozen_blocks(frame)
    return histogram_ridges(
        negative_first,
        blocks=arrays["names"].tolist(),
        epochs=arrays["epochs"].tolist(),
        frozen=[names[block] for block in sorted(resting) if block not in filled],
    )
