"""Normalised confusion matrices of all configurations beside each other."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.seed_range import Floats, as_floats

MOST_NUMBERED_CLASSES = 12
MOST_NAMED_CLASSES = 40
BACKGROUND = "background"


def confusion_grid(
    matrices: Mapping[str, npt.ArrayLike],
    *,
    names: Sequence[str],
    split: str,
    conf: float | None = None,
    iou: float | None = None,
    baseline: str | None = None,
) -> Figure:
    """Return one panel per configuration with its confusion matrix, shares of each row in [0, 1].

    Args:
        matrices: Per configuration (n_classes + 1, n_classes + 1), [true, predicted], each row normalised to 1,
            `background` last in both: the last column is what was missed, the last row what was found where nothing is.
            NaN (a row without objects) is drawn in light grey.
        names: Class names without background.
        split: Split it was measured on.
        conf: Confidence threshold, named in the title.
        iou: IoU threshold of the matching, named in the title.
        baseline: Configuration drawn first; None means the first.

    Returns:
        A figure with one image per configuration (gid `confusion:<name>`), numbers in the cells up to 12 classes, names
        on the axes up to 40 and indices beyond.

    Raises:
        ShapeError: A matrix is not (n_classes + 1, n_classes + 1).
    """
    looks = style.looks(matrices, baseline=baseline)
    size = len(names) + 1
    n_columns = min(max(1, math.ceil(math.sqrt(len(looks)))), 4)
    n_rows = max(1, math.ceil(len(looks) / n_columns))
    panel_in = min(max(0.36 * size, 2.3), 4.8)
    named_in = 0.9 if len(names) <= MOST_NAMED_CLASSES else 0.3
    figure = style.new_figure(
        width_in=max(n_columns * (panel_in + 0.15) + named_in + 1.5, 5.0),
        height_in=n_rows * (panel_in + 0.35) + named_in + 1.2,
    )
    thresholds = [f"{word} {value:g}" for word, value in (("conf", conf), ("IoU", iou)) if value is not None]
    style.state(
        figure,
        f"Confusion on {split}, share of each true class" + "".join(f", {text}" for text in thresholds),
        "Rows: true class; columns: predicted class; each row sums to 1. Last column: missed. Last row: found where "
        "nothing is, by predicted class. Grey: no objects.",
    )
    if not looks:
        style.say_nothing_to_draw(figure, "There is no configuration to draw.")
        return figure
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    image = None
    for i, axes in enumerate(panels.flat):
        if i >= len(looks):
            axes.set_visible(False)
            continue
        name = list(looks)[i]
        values = as_floats(matrices[name], ndim=2, what=f"matrices[{name!r}] (n_classes + 1, n_classes + 1)")
        if values.shape != (size, size):
            raise ShapeError(
                f"matrices[{name!r}] has shape {values.shape} for {len(names)} class names. Pass ({size}, {size})."
            )
        image = _draw(axes, values, name=name)
        axes.set_title(style.short(name), loc="left", **style.lettering(color=looks[name].color, fontweight="bold"))
        below = i + n_columns < len(looks)
        _label(axes, names, x_named=not below, y_named=i % n_columns == 0)
    assert image is not None
    bar = figure.colorbar(
        image, ax=panels, fraction=0.03, pad=0.02, aspect=25, shrink=min(1.0, 4.0 / (n_rows * panel_in))
    )
    style.dress_color_bar(bar, label="share of the true class")
    return figure


def _draw(axes: Axes, values: Floats, *, name: str) -> AxesImage:
    """Draw one matrix, with numbers when its cells are large enough."""
    colors = colormaps["Blues"].with_extremes(bad=style.MISSING_COLOR)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    image.set_gid(f"confusion:{name}")
    if len(values) <= MOST_NUMBERED_CLASSES + 1:
        for row, column in np.argwhere(np.nan_to_num(values) >= 0.005):
            value = values[row, column]
            color = "white" if value > 0.55 else style.INK
            text = "1" if value >= 0.995 else f"{value:.2f}"[1:]
            axes.text(column, row, text, ha="center", va="center", **style.lettering(6.5, color=color))
    return image


def _label(axes: Axes, names: Sequence[str], *, x_named: bool, y_named: bool) -> None:
    """Name the rows and columns; beyond 40 classes by index, the background always by name."""
    size = len(names) + 1
    if len(names) <= MOST_NAMED_CLASSES:
        ticks, labels = list(range(size)), [legible(name, longest=18) for name in names] + [BACKGROUND]
    else:
        step = 10 if size <= 120 else 10 * math.ceil(size / 120)
        ticks = [*range(0, size - 1 - step // 2, step), size - 1]
        labels = [str(tick) for tick in ticks[:-1]] + [BACKGROUND]
    style.dress(axes, grid=None)
    font = style.lettering(6.5 if size > 20 else 7.5)
    axes.set_xticks(ticks, labels, rotation=90, **font)
    axes.set_yticks(ticks, labels, **font)
    axes.tick_params(length=0, labelbottom=x_named, labelleft=y_named)
    if x_named:
        axes.set_xlabel("predicted", **style.lettering())
    if y_named:
        axes.set_ylabel("true", **style.lettering())
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axhline(size - 1.5, color="#9a9a9a", linewidth=0.6)
    axes.axvline(size - 1.5, color="#9a9a9a", linewidth=0.6)
