"""A statistic of every block over the epochs, as a heat map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.ma as ma
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats, as_floats

_FROZEN_COLOR = "#d2d2d2"
_HATCH_COLOR = "#9c9c9c"


def blocks_over_epochs(
    values: npt.ArrayLike,
    *,
    blocks: Sequence[str],
    statistic: str,
    unit: str = "",
    frozen: npt.ArrayLike | None = None,
    log10: bool = False,
    first_epoch: int = 1,
    per_epoch: int = 1,
    subject: str = "",
) -> Figure:
    """Return the heat map of one statistic, blocks from top to bottom, epochs from left to right.

    Args:
        values: (n_blocks, n_epochs * per_epoch); NaN where nothing was measured.
        blocks: Block names, for example `04-C3k2`.
        statistic: What the numbers are, for example `gradient L2 before clipping`.
        unit: Unit; empty when dimensionless.
        frozen: (n_blocks,) for the whole training or the shape of `values`, True where the block was frozen; such
            cells are hatched, and a row that is frozen throughout is labelled so. None when nothing was.
        log10: Colours by the logarithm. Zero and negative values get the colour of the lowest positive one.
        first_epoch: Number of the first epoch.
        per_epoch: Columns to an epoch, its steps from left to right.
        subject: What was trained, appended to the title, for example `freeze 10, seed 0`.

    Returns:
        A figure with one image of gid `values`, masked where a value is missing or the block frozen; frozen stretches
        are patches of gid `frozen:<block>`.

    Raises:
        ShapeError: Values, blocks and frozen do not fit together.
    """
    table = as_floats(values, ndim=2, what="values (n_blocks, n_epochs)")
    if len(table) != len(blocks):
        raise ShapeError(f"values has {len(table)} rows for {len(blocks)} block names. Pass one row per block.")
    resting = _frozen_cells(frozen, table.shape)
    row_in = 0.21 if len(blocks) > 12 else 0.27
    figure = style.new_figure(width_in=8.4, height_in=max(row_in * len(blocks), 1.2) + 1.7)
    details = ", ".join([unit] * bool(unit) + ["logarithmic colours"] * log10)
    style.state(
        figure,
        f"{statistic} by block and {'epoch' if per_epoch == 1 else 'step'}"
        + f" [{details}]" * bool(details)
        + f": {subject}" * bool(subject),
        _reading(table, resting, log10=log10),
    )
    if not table.size:
        style.say_nothing_to_draw(figure, "There are no blocks or no epochs to draw.")
        return figure
    axes = figure.add_subplot()
    visible = ma.masked_where(resting | ~np.isfinite(table), table)
    colors = colormaps["viridis"].with_extremes(bad=style.MISSING_COLOR)
    norm = _norm(visible, log10=log10)
    extent = (first_epoch - 0.5, first_epoch - 0.5 + table.shape[1] / per_epoch, len(blocks) - 0.5, -0.5)
    assert norm.vmin is not None
    drawn = visible.clip(min=norm.vmin)  # zero has no logarithm; on a linear scale nothing is below
    image = axes.imshow(drawn, cmap=colors, norm=norm, aspect="auto", interpolation="nearest", extent=extent)
    image.set_gid("values")
    _hatch(axes, resting, blocks, first_epoch=first_epoch, per_epoch=per_epoch)
    style.dress(axes, x_label="epoch", grid=None)
    whole = [bool(row.all()) for row in resting]
    labels = [style.short(name) + (" · frozen" if gone else "") for name, gone in zip(blocks, whole, strict=True)]
    axes.set_yticks(range(len(blocks)), labels, **style.lettering(style.SMALL_SIZE))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14, min_n_ticks=1))
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    style.dress_color_bar(bar, label=f"{statistic} [{unit}]" if unit else statistic)
    return figure


def _frozen_cells(frozen: npt.ArrayLike | None, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return `frozen` as (n_blocks, n_epochs)."""
    if frozen is None:
        return np.zeros(shape, dtype=np.bool_)
    cells = np.asarray(frozen, dtype=np.bool_)
    if cells.shape == shape[:1]:
        return np.repeat(cells[:, None], shape[1], axis=1)
    if cells.shape != shape:
        raise ShapeError(f"frozen has shape {cells.shape} for values {shape}. Pass {shape[:1]} or {shape}.")
    return cells


def _reading(table: Floats, resting: npt.NDArray[np.bool_], *, log10: bool) -> str:
    """Return the lines below the figure that explain what is special in it."""
    lines = []
    if resting.any():
        lines.append("Hatched: frozen.")
    if (~np.isfinite(table) & ~resting).any():
        lines.append("Light grey: not measured.")
    if log10 and (table[~resting] <= 0).any():
        lines.append("Values of 0 or below have the colour of the lowest positive value.")
    return " ".join(lines)


def _norm(visible: "ma.MaskedArray[Any, np.dtype[np.float64]]", *, log10: bool) -> Normalize:
    """Return the scale of colours over the visible values, of some width even when all are equal or none is left."""
    known = visible.compressed()
    if log10:
        known = known[known > 0]
    if not len(known):
        return LogNorm(0.1, 1) if log10 else Normalize(0, 1)
    low, high = float(known.min()), float(known.max())
    if log10:
        return LogNorm(low, high) if high > low else LogNorm(low / 2, high * 2)
    margin = 0.0 if high > low else abs(high) * 0.1
    return Normalize(low - margin, high + (margin or float(high == low)))  # all zero: from 0 to 1


def _hatch(
    axes: Axes, resting: npt.NDArray[np.bool_], blocks: Sequence[str], *, first_epoch: int, per_epoch: int
) -> None:
    """Lay a hatched patch over every frozen stretch of epochs."""
    for row, cells in enumerate(resting):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], cells, [False]]).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2):
            axes.add_patch(
                Rectangle(
                    (first_epoch + start / per_epoch - 0.5, row - 0.5),
                    (stop - start) / per_epoch,
                    1,
                    facecolor=_FROZEN_COLOR,
                    edgecolor=_HATCH_COLOR,
                    hatch="/////",
                    linewidth=0,
                    gid=f"frozen:{blocks[row]}",
                )
            )
