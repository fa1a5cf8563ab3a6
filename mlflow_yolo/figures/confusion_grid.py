"""Normalised confusion matrices of all configurations beside each other."""

import math
from collections.abc import Mapping, Sequence

import numpy.typing as npt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.confusion_matrix import (
    BACKGROUND,
    LONGEST_NAME,
    MOST_NUMBERED_CLASSES,
    draw_shares,
    name_axes,
)
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.seed_range import as_floats

MOST_NAMED_CLASSES = 40
"""Fewer than in one matrix alone: the panels are small."""


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
    labels = [*(legible(name, longest=LONGEST_NAME) for name in names), BACKGROUND]
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
        image = draw_shares(
            axes,
            values,
            gid=f"confusion:{name}",
            norm=Normalize(0, 1),
            numbered=len(names) <= MOST_NUMBERED_CLASSES,
            number_size=6.5,
        )
        axes.set_title(style.short(name), loc="left", **style.lettering(color=looks[name].color, fontweight="bold"))
        name_axes(axes, labels, labels, most_named=MOST_NAMED_CLASSES, background=True)
        lowest, leftmost = i + n_columns >= len(looks), i % n_columns == 0
        axes.tick_params(labelbottom=lowest, labelleft=leftmost)
        axes.xaxis.label.set_visible(lowest)
        axes.yaxis.label.set_visible(leftmost)
    assert image is not None
    bar = figure.colorbar(
        image, ax=panels, fraction=0.03, pad=0.02, aspect=25, shrink=min(1.0, 4.0 / (n_rows * panel_in))
    )
    style.dress_color_bar(bar, label="share of the true class")
    return figure
