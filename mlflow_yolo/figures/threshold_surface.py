"""Measures over confidence and IoU of suppression as heat maps, with the point that was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats, as_floats

COLUMNS = 4
COLORS: Mapping[str, str] = {"high": "viridis", "low": "viridis_r", "neither": "Greys"}
"""By what is good: light is, and grey is neither."""
MARK = "#ffffff"
"""Colour of the chosen point, ringed in black: seen on every colour of the map."""


@dataclass(frozen=True)
class Heat:
    """One map.

    Attributes:
        values: (J, K) by overlap of suppression and confidence; nan where there is no value.
        label: What it is, with its unit.
        good: Which values are good: `high`, `low` or `neither`.
    """

    values: npt.ArrayLike
    label: str
    good: str = "high"


def threshold_surface(
    heats: Mapping[str, Heat],
    *,
    confs: npt.ArrayLike,
    ious: npt.ArrayLike,
    split: str,
    point: tuple[float, float] | None = None,
    reading: str = "",
) -> Figure:
    """Return one heat map for every measure, four in a row.

    Args:
        heats: By name.
        confs: (K,) confidences, rising.
        ious: (J,) overlaps of suppression, rising.
        split: Split it was measured on.
        point: Confidence and overlap that were chosen.
        reading: What else is said below.

    Returns:
        A figure; each map is a mesh with the gid of its name, the point a line with gid `point`. Light is good: where
        low values are, the colours run the other way.

    Raises:
        ShapeError: A map does not have a row for every overlap and a column for every confidence.
    """
    x, y = (as_floats(values, ndim=1, what=what) for values, what in ((confs, "confs"), (ious, "ious")))
    rows = max(1, ceil(len(heats) / COLUMNS))
    figure = style.new_figure(width_in=3.3 * min(max(len(heats), 1), COLUMNS) + 0.3, height_in=2.6 * rows + 0.9)
    at = f" The ring is the point chosen: conf {point[0]:g}, IoU {point[1]:g}." if point else ""
    style.state(
        figure,
        f"Every threshold on {split}: confidence against IoU of suppression",
        f"Light is good, grey neither.{at} {reading}".strip(),
    )
    if not heats or not len(x) or not len(y):
        style.say_nothing_to_draw(figure, "There are no thresholds to draw.")
        return figure
    for place, (name, heat) in enumerate(heats.items()):
        values = as_floats(heat.values, ndim=2, what=f"{name} (ious, confs)")
        if values.shape != (len(y), len(x)):
            raise ShapeError(f"{name} has shape {values.shape}, expected {(len(y), len(x))}: overlaps by confidences.")
        axes = figure.add_subplot(rows, COLUMNS if len(heats) > COLUMNS else len(heats), place + 1)
        _draw(figure, axes, name, heat, values, x, y)
        if point is not None:
            axes.plot(*point, "o", markersize=8, mfc="none", mec="black", mew=2.6, clip_on=False, gid="ring", zorder=4)
            axes.plot(*point, "o", markersize=8, mfc="none", mec=MARK, mew=1.2, clip_on=False, gid="point", zorder=5)
    return figure


def edges(centres: Floats) -> Floats:
    """Return the (n + 1,) borders of cells around n rising centres; a single cell is 0.05 wide."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.025, centres[0] + 0.025])
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])


def _draw(figure: Figure, axes: Axes, name: str, heat: Heat, values: Floats, x: Floats, y: Floats) -> None:
    colors = colormaps[COLORS[heat.good]].with_extremes(bad=style.MISSING_COLOR)
    mesh = axes.pcolormesh(edges(x), edges(y), np.ma.masked_invalid(values), cmap=colors, rasterized=True)
    mesh.set_gid(name)
    style.dress(axes, x_label="confidence above", y_label="IoU of suppression", grid=None)
    axes.set_title(style.short(heat.label), loc="left", **style.lettering())
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02, aspect=22)
    style.dress_color_bar(bar, label="")
