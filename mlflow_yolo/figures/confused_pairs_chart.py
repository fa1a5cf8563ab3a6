"""The most confused pairs of classes with the rate of each and its interval."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import legible

COLUMNS = ("true", "predicted", "count", "n_true", "rate", "low", "high")


def confused_pairs_chart(pairs: pd.DataFrame, *, split: str, most: int = 20) -> Figure:
    """Return the figure of the first pairs of a table, in the table's order from the top.

    Args:
        pairs: Columns `true`, `predicted`, `count`, `n_true`, `rate`, `low`, `high`, as `confused_pairs` returns them.
        split: Split it was measured on.
        most: Most pairs to draw.

    Returns:
        A figure with a point per pair (line with gid `rate`) and a line for its 95 % interval.

    Raises:
        ShapeError: A column is missing.
    """
    if missing := [name for name in COLUMNS if name not in pairs.columns]:
        raise ShapeError(f"the table of pairs has no column {missing[0]!r}. Pass what `confused_pairs` returns.")
    drawn = pairs.head(most)
    figure = style.new_figure(width_in=7.6, height_in=1.6 + 0.27 * max(len(drawn), 4))
    style.state(
        figure,
        f"Most confused classes on {split}, share of the true class",
        "True \N{RIGHTWARDS ARROW} predicted (count of how many true ones). Line: 95 % Wilson interval."
        + (f" {len(drawn)} of {len(pairs)} pairs." if len(drawn) < len(pairs) else ""),
    )
    if not len(drawn):
        style.say_nothing_to_draw(figure, "No pair of classes is confused often enough to be drawn.")
        return figure
    axes = figure.add_subplot()
    places = np.arange(len(drawn))
    low, high, rate = (drawn[name].to_numpy(dtype=np.float64) for name in ("low", "high", "rate"))
    axes.hlines(places, low, high, color=style.PALETTE[1], linewidth=2.0, alpha=0.5)
    axes.plot(rate, places, linestyle="", marker="o", markersize=5, color=style.PALETTE[1], gid="rate")
    style.dress(axes, x_label="share of the true class", grid="x")
    axes.set_yticks(places, [_label(*row) for row in drawn[list(COLUMNS[:4])].itertuples(index=False)],
                    **style.lettering(style.SMALL_SIZE))  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(0, min(1.02, max(0.05, 1.06 * float(np.nanmax(high, initial=0)))))
    return figure


def _label(true: str, predicted: str, count: int, n_true: int) -> str:
    names = (legible(name, longest=22) for name in (true, predicted))
    return " \N{RIGHTWARDS ARROW} ".join(names) + f" ({count} of {n_true})"
