"""How a benchmark went: what each round measured of each variant, so that a disturbed one can be seen."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.figures import style
from mlflow_yolo.figures.pareto import ticks
from mlflow_yolo.figures.seed_range import Floats, as_floats

_LOG_FROM_RATIO = 3.0
_HALF_ROW = 0.3


def latency_rounds(rounds: Mapping[str, npt.ArrayLike], *, machine: str, reference: str | None = None) -> Figure:
    """Return one row of dots per variant, the fastest at the top: each dot is the median latency of one round.

    Args:
        rounds: Per variant (n_rounds,) median latencies, ms, in the order of the rounds; empty where it failed.
        machine: On what they were measured.
        reference: The variant through whose median a line is drawn.

    Returns:
        A figure with a line of gid `rounds:<name>` and one of gid `median:<name>` for each variant that was measured.
        Within a row the rounds run from top to bottom, so that a slow minute shows as a bump at one height in all rows.

    Raises:
        ShapeError: The values of a variant are not (n_rounds,).
    """
    values = {name: as_floats(v, ndim=1, what=f"rounds[{name!r}] (n_rounds,)") for name, v in rounds.items()}
    medians = {name: float(np.nanmedian(v)) if np.isfinite(v).any() else np.inf for name, v in values.items()}
    order = sorted(values, key=lambda name: medians[name])
    figure = style.new_figure(width_in=8.4, height_in=1.7 + 0.34 * max(len(order), 3))
    n_rounds = max((len(v) for v in values.values()), default=0)
    style.state(
        figure,
        f"Latency of one image in each of {n_rounds} rounds, {machine}",
        "Dot: median of a round, the first at the top of its row. Bar: median of all." + _dotted(reference, medians),
    )
    if not np.isfinite(list(medians.values())).any():
        style.say_nothing_to_draw(figure, "No variant was measured.")
        return figure
    axes = figure.add_subplot()
    style.dress(axes, x_label="latency of one image [ms]", grid="x")
    _scale(axes, [values[name] for name in order])
    if reference is not None and np.isfinite(medians.get(reference, np.inf)):
        axes.axvline(medians[reference], color=style.QUIET, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1.5)
    for place, name in enumerate(order):
        _draw_row(axes, place, name, values[name], medians[name])
    axes.set_yticks(range(len(order)), [style.short(name) for name in order], **style.lettering(style.SMALL_SIZE))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(order) - 0.4, -0.6)
    return figure


def _draw_row(axes: Axes, place: int, name: str, values: Floats, median: float) -> None:
    if not np.isfinite(median):
        axes.text(0.01, place, "not measured", va="center", transform=axes.get_yaxis_transform(),
                  **style.lettering(7.5, color=style.QUIET))  # fmt: skip
        return
    heights = place + np.linspace(-_HALF_ROW, _HALF_ROW, len(values)) if len(values) > 1 else np.array([place])
    axes.plot(values, heights, color=style.PALETTE[0], linewidth=0.6, alpha=0.4, zorder=2.5)
    axes.plot(values, heights, color=style.PALETTE[0], linestyle="", marker="o", markersize=3.2, markeredgewidth=0,
              gid=f"rounds:{name}", zorder=3)  # fmt: skip
    axes.plot([median, median], [place - 0.42, place + 0.42], color=style.PALETTE[1], linewidth=2.2, alpha=0.9,
              gid=f"median:{name}", zorder=2)  # fmt: skip
    axes.annotate(f"{median:.3g} ms", (1.0, place), xycoords=axes.get_yaxis_transform(), xytext=(6, 0),
                  textcoords="offset points", va="center", **style.lettering(style.SMALL_SIZE))  # fmt: skip


def _scale(axes: Axes, rows: Sequence[Floats]) -> None:
    known = np.concatenate(rows)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    if low > 0 and high >= _LOG_FROM_RATIO * low:
        axes.set_xscale("log")
        left, right = low / 1.08, high * 1.08
        places = ticks(left, right)
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
        axes.set_xlim(left, right)
    else:
        axes.set_xlim(0, 1.05 * high)


def _dotted(reference: str | None, medians: Mapping[str, float]) -> str:
    known = reference is not None and np.isfinite(medians.get(reference, np.inf))
    return f" Dotted: {style.short(str(reference))}." if known else ""
