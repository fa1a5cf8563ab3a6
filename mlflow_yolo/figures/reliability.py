"""The reliability diagram: how often a prediction of a certain confidence is right."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats, as_floats

RIGHT_COLOR = style.PALETTE[0]
SHORTFALL_COLOR = style.PALETTE[1]


def reliability_diagram(
    edges: npt.ArrayLike,
    mean_conf: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    split: str,
    error: float,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    what: str = "accuracy",
    error_name: str = "ECE",
) -> Figure:
    """Return the figure of what was measured against confidence, with the number of predictions below.

    Args:
        edges: (B + 1,) ends of the bins of confidence.
        mean_conf: (B,) mean confidence in each bin; NaN for an empty one.
        accuracy: (B,) what the confidence should equal, in [0, 1]: accuracy, precision, or precision times IoU.
        n: (B,) predictions in each bin.
        split: Split it was measured on.
        error: Calibration error, written in the title; NaN is left out.
        low: (B,) lower end of an interval of `accuracy`; None draws none.
        high: (B,) upper end.
        what: Name of `accuracy`.
        error_name: Name of `error`.

    Returns:
        A figure with a bar per bin that is not empty, a line from the bar's end to the diagonal, and the counts below;
        the points (mean_conf, accuracy) are a line with gid `measured`.

    Raises:
        ShapeError: The arrays differ in the number of bins.
    """
    ends = as_floats(edges, ndim=1, what="edges (B + 1,)")
    given = {"mean_conf": mean_conf, "accuracy": accuracy, "n": n, "low": low, "high": high}
    arrays = {name: as_floats(v, ndim=1, what=f"{name} (B,)") for name, v in given.items() if v is not None}
    for name, array in arrays.items():
        if len(array) != max(len(ends) - 1, 0):
            raise ShapeError(f"{name} has {len(array)} bins for {len(ends)} edges. Pass one per bin, edges one more.")
    total = int(np.nansum(arrays["n"]))
    figure = style.new_figure(width_in=5.6, height_in=6.4)
    named_error = f", {error_name} {error:.3f}" if np.isfinite(error) else ""
    style.state(
        figure,
        f"{what.capitalize()} against confidence on {split}{named_error} (n={total})",
        f"Bar: {what} of the predictions in a bin of confidence. Dashed line: confidence equals {what}; a bar that "
        "ends below it: too confident. Orange: the gap."
        + (" Whisker: 95 % interval." if low is not None and high is not None else ""),
    )
    if not total:
        style.say_nothing_to_draw(figure, "There are no predictions to draw.")
        return figure
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    _draw_bins(upper, ends, arrays)
    style.dress(upper, y_label=what, grid="both")
    upper.set_ylim(0, 1.02)
    lower.bar(ends[:-1], arrays["n"], width=np.diff(ends), align="edge", color=style.QUIET, edgecolor="white",
              linewidth=0.6)  # fmt: skip
    style.dress(lower, x_label="confidence", y_label="predictions", grid="y")
    lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    lower.set_xlim(0, 1)
    return figure


def _draw_bins(axes: Axes, ends: Floats, arrays: dict[str, Floats]) -> None:
    """Draw bars, gaps to the diagonal, whiskers and the measured points."""
    filled = np.nonzero((arrays["n"] > 0) & np.isfinite(arrays["accuracy"]) & np.isfinite(arrays["mean_conf"]))[0]
    conf, accuracy = arrays["mean_conf"][filled], arrays["accuracy"][filled]
    axes.bar(ends[filled], accuracy, width=np.diff(ends)[filled], align="edge", color=RIGHT_COLOR, alpha=0.35,
             edgecolor="white", linewidth=0.6)  # fmt: skip
    axes.plot([0, 1], [0, 1], color=style.QUIET, linestyle="--", linewidth=0.9)
    axes.vlines(conf, np.minimum(conf, accuracy), np.maximum(conf, accuracy), color=SHORTFALL_COLOR, linewidth=2.4)
    if "low" in arrays and "high" in arrays:
        axes.vlines(conf, arrays["low"][filled], arrays["high"][filled], color=style.INK, linewidth=0.8)
    axes.plot(conf, accuracy, linestyle="", marker="o", markersize=4, color=RIGHT_COLOR, gid="measured")
