"""One value per class as bars, from the lowest to the highest, readable at a hundred classes and cut beyond."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats, as_floats

MOST_CLASSES = 120
ROWS = 40
"""Classes below each other; more go into further columns."""


def class_bars(
    values: npt.ArrayLike,
    names: Sequence[str],
    *,
    split: str,
    what: str = "accuracy",
    counted: str = "images",
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    n: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
) -> Figure:
    """Return the figure of one value in [0, 1] per class.

    Args:
        values: (C,) value of each class; NaN for a class without one.
        names: C class names.
        split: Split it was measured on.
        what: What the value is, as it is written on the axis.
        counted: What `n` counts.
        low: (C,) lower end of an interval; None draws none.
        high: (C,) upper end.
        n: (C,) how many of each class there are, written beside the name.

    Returns:
        A figure whose classes run from the lowest value at the top to the highest, down one column after the other,
        those without a value last; of more than 120 the 120 lowest. Bars are containers of each axes. A line marks the
        mean over all classes that have a value.

    Raises:
        ShapeError: The arrays do not have one entry per name.
    """
    given = {"values": values, "low": low, "high": high, "n": n}
    arrays = {name: as_floats(v, ndim=1, what=f"{name} (C,)") for name, v in given.items() if v is not None}
    for name, array in arrays.items():
        if len(array) != len(names):
            raise ShapeError(f"{name} has {len(array)} entries for {len(names)} class names. Pass one per class.")
    order = np.argsort(arrays["values"], kind="stable")[:MOST_CLASSES]  # NaN last
    known = np.isfinite(arrays["values"])
    mean = float(arrays["values"][known].mean()) if known.any() else float("nan")
    n_columns = max(1, -(-len(order) // ROWS))
    n_rows = -(-len(order) // n_columns) if len(order) else 0
    figure = style.new_figure(width_in=max(6.4, 4.1 * n_columns), height_in=1.6 + 0.19 * max(n_rows, 6))
    figure_of = f"{what} per class on {split}"
    style.state(
        figure,
        f"{figure_of[0].upper()}{figure_of[1:]}" + (f": mean {mean:.3f}" if known.any() else ""),
        _reading(arrays, counted, n_drawn=len(order), n_classes=len(names), several=n_columns > 1),
    )
    if not len(order):
        style.say_nothing_to_draw(figure, "There are no classes to draw.")
        return figure
    for i, axes in enumerate(figure.subplots(1, n_columns, squeeze=False, sharex=True).flat):
        column = order[i * n_rows : (i + 1) * n_rows]
        _draw(axes, column, arrays, n_rows=n_rows, mean=mean)
        style.dress(axes, x_label=what, grid="x")
        labels = [style.short(names[k]) + (f" ({int(arrays['n'][k])})" if "n" in arrays else "") for k in column]
        axes.set_yticks(range(len(column)), labels, **style.lettering(7.5))
        axes.tick_params(axis="y", length=0)
    return figure


def _draw(axes: Axes, classes: npt.NDArray[np.intp], arrays: dict[str, Floats], *, n_rows: int, mean: float) -> None:
    """Draw one column of classes from the top."""
    values, places = arrays["values"][classes], np.arange(len(classes))
    axes.barh(places, values, height=0.72, color=style.PALETTE[0], alpha=0.75)
    if "low" in arrays and "high" in arrays:
        axes.hlines(places, arrays["low"][classes], arrays["high"][classes], color=style.INK, linewidth=0.9)
    for place in places[~np.isfinite(values)]:
        axes.text(0.01, place, "none", va="center", **style.lettering(7, color=style.QUIET))
    if np.isfinite(mean):
        axes.axvline(mean, color=style.PALETTE[1], linewidth=1.0)
    axes.set_ylim(n_rows - 0.4, -0.6)
    axes.set_xlim(0, 1.02)


def _reading(arrays: dict[str, Floats], counted: str, *, n_drawn: int, n_classes: int, several: bool) -> str:
    """Return how the figure is read."""
    parts = ["Orange line: mean over the classes."]
    if "low" in arrays and "high" in arrays:
        parts.append("Whisker: 95 % interval.")
    if "n" in arrays:
        parts.append(f"In brackets: {counted} of the class.")
    if several:
        parts.append("Lowest first, down each column.")
    if n_drawn < n_classes:
        parts.append(f"The {n_drawn} lowest of {n_classes} classes.")
    return " ".join(parts)
