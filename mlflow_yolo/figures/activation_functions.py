"""The graph of every activation function over the distribution of the pre-activations that it receives.

The upper half of a panel answers where the function is used: the graph, and behind it how the layers' densities lie.
The lower half has one row a layer, since 81 curves on top of one another cannot be told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible
from mlflow_yolo.figures.seed_range import Floats

LIMIT = 6.0
_DENSITY_COLOR = "#0072B2"
_FUNCTION_COLOR = "#D55E00"
_OFF_COLOR = "#b0b0b0"
_LINEAR_COLOR = "#009E73"
_MOST_COLUMNS = 3
_ROW_IN = 0.08  # room for a label of a block of one layer
_ABOVE_IN = 2.5


@dataclass(frozen=True, eq=False)
class FunctionPanel:
    """One activation function and the layers that use it.

    Attributes:
        name: Of the function: `SiLU`.
        z: (N,) where the function is drawn, ascending from -6 to 6.
        value: (N,) f(z).
        off_below: The function is off at and below this z; -inf for never.
        off_above: And at and above this one; inf for never.
        linear_above: It is linear above this z; inf for nowhere.
        blocks: (L,) name of each layer's block, layers of one block beside one another.
        edges: (K + 1,) edges of the bins of z.
        densities: (L, K) density of each layer's pre-activations, per unit of z; the rest of each lies outside.
        off_fraction: Share of values that is off, over all layers.
        linear_fraction: Share that is linear.
    """

    name: str
    z: Floats
    value: Floats
    off_below: float
    off_above: float
    linear_above: float
    blocks: Sequence[str]
    edges: Floats
    densities: Floats
    off_fraction: float
    linear_fraction: float


def activation_functions(panels: Sequence[FunctionPanel], *, subject: str = "") -> Figure:
    """Return one panel per function: its graph before the layers' densities, and below it each layer's density.

    Args:
        panels: One for each distinct function.
        subject: What was measured, appended to the title: `yolo11n, epoch 3, val`.

    Returns:
        A figure with two axes a panel, gid `function:<name>` (its graph is the line of gid `graph`) and
        `layers:<name>` (an image of gid `densities`, the first layer on top).

    Raises:
        ShapeError: The parts of a panel do not fit one another.
    """
    for panel in panels:
        _check(panel)
    n_columns = min(max(len(panels), 1), _MOST_COLUMNS)
    n_rows = -(-len(panels) // n_columns) or 1
    most_layers = max([len(panel.blocks) for panel in panels], default=1)
    layers_in = min(max(most_layers * _ROW_IN, 1.0), 7.0)
    figure = style.new_figure(
        width_in=max(5.2 * n_columns + 0.6, 6.4), height_in=(_ABOVE_IN + layers_in) * n_rows + 1.3
    )
    title = "Activation functions and the values they receive" + (f": {subject}" if subject else "")
    if not panels:
        style.state(figure, title)
        style.say_nothing_to_draw(figure, "No pre-activation was measured.")
        return figure
    style.state(
        figure,
        title,
        "Above: the function f (orange) before the density of its argument z (blue): line the median layer, dark band "
        "the middle 80 % of layers, light band all. Below: density of z in each layer, first layer on top, by block. "
        f"Percentages: share of all values, also beyond ±{LIMIT:g}, mean over the layers.",
    )
    grid = figure.add_gridspec(n_rows * 2, n_columns, height_ratios=[_ABOVE_IN, layers_in] * n_rows)
    for i, panel in enumerate(panels):
        row, column = divmod(i, n_columns)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
        _draw_function(upper, panel)
        mesh = _draw_layers(lower, panel)
        bar = figure.colorbar(mesh, ax=lower, pad=0.01, aspect=30)
        style.dress_color_bar(bar, label="density per unit of z")
    return figure


def _check(panel: FunctionPanel) -> None:
    expected = (len(panel.blocks), len(panel.edges) - 1)
    if panel.densities.shape != expected or panel.z.shape != panel.value.shape:
        raise ShapeError(
            f"{panel.name}: densities has shape {panel.densities.shape} for {len(panel.blocks)} layers and "
            f"{len(panel.edges) - 1} bins, z {panel.z.shape} and value {panel.value.shape}. Pass arrays that fit."
        )


def _draw_function(axes: Axes, panel: FunctionPanel) -> None:
    """Draw the densities over the layers on a scale of their own, and the function and its regions in front."""
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    axes.set_gid(f"function:{panel.name}")
    axes.plot(panel.z, panel.value, color=_FUNCTION_COLOR, linewidth=2.0, gid="graph")
    style.dress(axes)
    axes.set_ylabel("f(z)", **style.lettering(color=_FUNCTION_COLOR, fontweight="bold"))
    axes.set_xlim(-LIMIT, LIMIT)
    low, high = float(panel.value.min()), float(panel.value.max())
    axes.set_ylim(low - 0.06 * (high - low), high + 0.22 * (high - low))
    axes.tick_params(axis="x", labelbottom=False)
    n = len(panel.blocks)
    axes.set_title(f"{legible(panel.name)}: {n} layer{'s' * (n != 1)}", loc="left", **style.lettering(style.LABEL_SIZE))
    _name_regions(axes, panel)
    _draw_spread(behind, panel)


def _name_regions(axes: Axes, panel: FunctionPanel) -> None:
    """Shade where the function is off and where it is linear, and write the share of values over each region."""
    start, end = max(panel.off_below, -LIMIT), min(panel.off_above, LIMIT)
    bend = min(max(panel.linear_above, start), end)
    rest = max(1.0 - panel.off_fraction - panel.linear_fraction, 0.0)
    off = f"off\n{panel.off_fraction:.1%}"
    regions = [(-LIMIT, start, off, _OFF_COLOR), (start, bend, f"nonlinear\n{rest:.1%}", None)]
    regions += [(bend, end, f"linear\n{panel.linear_fraction:.1%}", _LINEAR_COLOR), (end, LIMIT, off, _OFF_COLOR)]
    for low, high, text, color in regions:
        if high <= low:
            continue
        if color:
            axes.axvspan(low, high, color=color, alpha=0.14, linewidth=0, zorder=0)
        middle = (low + high) / 2
        axes.text(
            *(middle, 0.97, text),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            **style.lettering(style.SMALL_SIZE, color=style.INK),
        )


def _draw_spread(axes: Axes, panel: FunctionPanel) -> None:
    """Draw how the layers' densities lie: the median layer, the middle 80 % of layers, and all."""
    axes.set_ylabel("density of z", **style.lettering(color=_DENSITY_COLOR, fontweight="bold"))
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not len(panel.blocks):
        return
    centres = (panel.edges[:-1] + panel.edges[1:]) / 2
    least, low, median, high, most = np.quantile(panel.densities, [0, 0.1, 0.5, 0.9, 1], axis=0)
    axes.fill_between(centres, least, most, color=_DENSITY_COLOR, alpha=0.10, linewidth=0)
    axes.fill_between(centres, low, high, color=_DENSITY_COLOR, alpha=0.22, linewidth=0)
    axes.plot(centres, median, color=_DENSITY_COLOR, linewidth=1.2, gid="median")
    # A single narrow layer would press all others to the ground.
    axes.set_ylim(0, max(float(high.max()) * 1.35, 1e-9))


def _draw_layers(axes: Axes, panel: FunctionPanel) -> QuadMesh:
    """Draw one row a layer, the first on top, and name each block where its rows lie."""
    axes.set_gid(f"layers:{panel.name}")
    n_layers = len(panel.blocks)
    highest = float(np.quantile(panel.densities, 0.995)) if panel.densities.size else 0.0
    mesh = axes.pcolormesh(
        panel.edges,
        np.arange(n_layers + 1),
        panel.densities,
        cmap="Blues",
        norm=Normalize(0, max(highest, 1e-9)),
        gid="densities",
        rasterized=True,
    )
    style.dress(axes, x_label="z, the pre-activation", grid=None)
    axes.set_ylim(max(n_layers, 1), 0)
    for limit in (panel.off_below, panel.off_above, panel.linear_above):
        if -LIMIT < limit < LIMIT:
            axes.axvline(limit, color=style.QUIET, linewidth=0.7, linestyle=":")
    starts = [i for i in range(n_layers) if i == 0 or panel.blocks[i] != panel.blocks[i - 1]]
    ends = [*starts[1:], n_layers]
    for start in starts[1:]:
        axes.axhline(start, color="white", linewidth=0.4)
    middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=False)]
    labels = [legible(panel.blocks[start], longest=14) for start in starts]
    axes.set_yticks(middles, labels, **style.lettering(5.5))
    axes.tick_params(axis="y", length=0)
    return mesh
