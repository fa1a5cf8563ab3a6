"""A confusion matrix, readable at three classes and at a thousand, with its axis convention written on it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.seed_range import Floats, as_floats

MOST_NUMBERED_CLASSES = 12
MOST_NAMED_CLASSES = 130
BACKGROUND = "background"
MOST_CELLS = 250
"""Rows that a figure of this size can show: at some 8 pixels a cell, a single light one is still seen."""
LONGEST_NAME = 18
_STEPS = (10, 20, 50, 100, 200, 500, 1000)


def confusion_matrix(
    matrix: npt.ArrayLike,
    names: Sequence[str],
    *,
    split: str,
    order: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
    background: bool = False,
    conf: float | None = None,
    iou: float | None = None,
) -> Figure:
    """Return the figure of one confusion matrix, each row as shares of its true class.

    Args:
        matrix: (C, C) counts [true, predicted]; with `background` (C+1, C+1), background last in both: the last column
            is what was missed, the last row what was found where nothing is.
        names: C class names, without background.
        split: Split it was measured on.
        order: Class ids in the order in which they are drawn. Of all classes this is `cluster_order`, and the figure
            says so; ids left out are not drawn, and the shares stay those of the whole matrix. None means all, in their
            own order.
        background: Whether the matrix is a detector's.
        conf: Confidence threshold, named in the title.
        iou: IoU threshold of the matching, named in the title.

    Returns:
        A figure with one image (gid `confusion`). Numbers in the cells up to 12 classes, with the count of the true
        class beside its name; names on the axes up to 130 classes, beyond that places. Above 12 classes the colour
        follows the square root of the share, so that a confusion of 1 % can be seen. Above 250 classes a cell is the
        largest share of several classes. A class without images or objects is a grey row.

    Raises:
        ShapeError: The matrix does not fit the names.
        ArgumentError: `order` names a class twice or one that does not exist.
    """
    counts = as_floats(matrix, ndim=2, what="matrix (true, predicted)")
    size = len(names) + background
    if counts.shape != (size, size):
        raise ShapeError(f"matrix has shape {counts.shape} for {len(names)} class names. Pass ({size}, {size}).")
    drawn = _drawn(order, len(names), background=background)
    shares, labels = _shares(counts)[np.ix_(drawn, drawn)], _labels(names, counts, drawn, background=background)
    n_drawn = len(drawn) - background
    large, per_cell = n_drawn > MOST_NUMBERED_CLASSES, max(1, math.ceil(n_drawn / MOST_CELLS))
    figure = _new_figure(len(drawn), [label for label, _ in labels])
    thresholds = [f", {word} {value:g}" for word, value in (("conf", conf), ("IoU", iou)) if value is not None]
    style.state(
        figure,
        f"Confusion on {split}, share of each true class" + "".join(thresholds),
        _reading(n_drawn, len(names), background=background, ordered=order is not None, per_cell=per_cell,
                 empty=bool(np.isnan(shares).any())),
    )  # fmt: skip
    if not n_drawn:
        style.say_nothing_to_draw(figure, "There are no classes to draw.")
        return figure
    axes = figure.add_subplot()
    norm: Normalize = PowerNorm(0.5, 0, 1) if large else Normalize(0, 1)
    cells = _largest(shares, per_cell, background=background)
    image = draw_shares(axes, cells, gid="confusion", norm=norm, numbered=not large)
    x_labels = [name for name, _ in labels]
    y_labels = [f"{name} ({n})" if not large and n else name for name, n in labels]
    name_axes(axes, x_labels, y_labels, most_named=MOST_NAMED_CLASSES, background=background, per_cell=per_cell)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, aspect=25, shrink=0.8)
    style.dress_color_bar(bar, label="share of the true class" + (" (square-root scale)" if large else ""))
    if large:
        bar.set_ticks(
            [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1], labels=["0", ".01", ".05", ".1", ".25", ".5", ".75", "1"]
        )
    return figure


def draw_shares(
    axes: Axes, shares: Floats, *, gid: str, norm: Normalize, numbered: bool, number_size: float = 7.5
) -> AxesImage:
    """Draw the cells of a matrix, NaN in light grey, with their numbers where they are at least 0.005.

    Args:
        axes: Where to draw.
        shares: (n, n) in [0, 1], rows are true classes.
        gid: Name of the image.
        norm: Share to colour.
        numbered: Whether the share is written into each cell.
        number_size: Font size of these numbers, points.
    """
    colors = colormaps["Blues"].with_extremes(bad=style.MISSING_COLOR)
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colors, norm=norm, interpolation="nearest")
    image.set_gid(gid)
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.005) if numbered else ():
        value = shares[row, column]
        color = "white" if value > 0.55 else style.INK
        text = "1" if value >= 0.995 else f"{value:.2f}"[1:]
        axes.text(column, row, text, ha="center", va="center", **style.lettering(number_size, color=color))
    return image


def name_axes(
    axes: Axes,
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    *,
    most_named: int,
    background: bool,
    per_cell: int = 1,
) -> None:
    """Name rows and columns; beyond `most_named` by their place, the background always by name.

    Args:
        axes: Axes that hold one square image.
        x_labels: A name per column, that of the background last.
        y_labels: A name per row.
        most_named: Classes up to which all are named.
        background: Whether the last row and column are the background; it is set apart by lines.
        per_cell: Classes that share a row of the image.
    """
    size, n_classes = len(x_labels), len(x_labels) - background
    last = math.ceil(n_classes / per_cell) - 0.5  # where the classes end in the image
    ticks = [float(i) for i in range(size)]
    if n_classes > most_named:
        step = next(step for step in _STEPS if size <= 12 * step or step == _STEPS[-1])
        kept = range(0, n_classes - (step // 2 if background else 0), step)
        ticks = [(i + 0.5) / per_cell - 0.5 for i in kept] + [last + 0.5] * background
        x_labels = y_labels = [str(i) for i in kept] + [BACKGROUND] * background
    style.dress(axes, grid=None)
    font = style.lettering(7.5 if size <= 20 else 6.5)
    axes.set_xticks(ticks, x_labels, rotation=90, **font)
    axes.set_yticks(ticks, y_labels, **font)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", **style.lettering())
    axes.set_ylabel("true", **style.lettering())
    for spine in axes.spines.values():
        spine.set_visible(False)
    if background:
        axes.axhline(last, color="#9a9a9a", linewidth=0.6)
        axes.axvline(last, color="#9a9a9a", linewidth=0.6)


def _drawn(order: Any, n_classes: int, *, background: bool) -> npt.NDArray[np.int64]:
    """Return the rows to draw, the background last."""
    ids = np.arange(n_classes) if order is None else np.asarray(order, dtype=np.int64).reshape(-1)
    if len(np.unique(ids)) < len(ids) or ((ids < 0) | (ids >= n_classes)).any():
        raise ArgumentError(
            f"order={ids.tolist()} does not fit {n_classes} classes: name each of 0 to C - 1 at most once."
        )
    return np.append(ids, n_classes) if background else ids


def _shares(counts: Floats) -> Floats:
    """Return each row as shares of its sum; NaN where a class does not occur."""
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0))


def _labels(
    names: Sequence[str], counts: Floats, drawn: npt.NDArray[np.int64], *, background: bool
) -> list[tuple[str, int]]:
    """Return the name of each drawn row and the count of its true class; no count for the background."""
    n_true = counts.sum(axis=1)
    rows = [(legible(names[i], longest=LONGEST_NAME), int(n_true[i])) for i in drawn[: len(drawn) - background]]
    return [*rows, (BACKGROUND, 0)] if background else rows


def _new_figure(size: int, labels: Sequence[str]) -> Figure:
    """Return a figure in which a cell of a named class is as high as its name."""
    side_in = min(max(0.55 * size, 2.4), 6.0) if size <= 20 else min(max(0.125 * size, 6.0), 16.3)
    named_in = 0.065 * max(map(len, labels), default=0) + 0.5 if size <= MOST_NAMED_CLASSES + 1 else 0.9
    return style.new_figure(width_in=max(side_in + named_in + 1.3, 5.2), height_in=side_in + named_in + 1.2)


def _largest(shares: Floats, per_cell: int, *, background: bool) -> Floats:
    """Return the largest share of each block of `per_cell` classes, the background in a row and column of its own."""
    if per_cell == 1:
        return shares
    n = len(shares) - background
    starts = [*range(0, n, per_cell), *([n] if background else [])]
    rows = np.fmax.reduceat(shares, starts, axis=0)  # NaN only where all are
    return np.asarray(np.fmax.reduceat(rows, starts, axis=1))


def _reading(n_drawn: int, n_classes: int, *, background: bool, ordered: bool, per_cell: int, empty: bool) -> str:
    """Return how the figure is read."""
    what = "objects" if background else "images"
    parts = ["Rows: true class; columns: predicted class; each row sums to 1."]
    if background:
        parts.append("Last column: missed. Last row: found where nothing is, by predicted class.")
    if n_drawn <= MOST_NUMBERED_CLASSES:
        parts.append(f"In brackets: {what} of the class.")
    if per_cell > 1:
        parts.append(f"A cell is the largest share of {per_cell} by {per_cell} classes.")
    if n_drawn < n_classes:
        parts.append(f"{n_drawn} of {n_classes} classes.")
    elif ordered:
        parts.append("Classes that are taken for each other stand side by side.")
    if ordered and n_drawn > MOST_NAMED_CLASSES:
        parts.append("Numbers are places in this order, not class ids.")
    if empty:
        parts.append(f"Grey: no {what}.")
    return " ".join(parts)
