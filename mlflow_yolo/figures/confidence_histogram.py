"""How sure a model was when it was right, and when it was wrong."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats

RIGHT_COLOR = style.PALETTE[0]
WRONG_COLOR = style.PALETTE[1]


def confidence_histogram(
    edges: npt.ArrayLike,
    right: npt.ArrayLike,
    wrong: npt.ArrayLike,
    *,
    split: str,
    above: float | None = 0.9,
    right_name: str = "right",
    wrong_name: str = "wrong",
) -> Figure:
    """Return the histograms of right and of wrong predictions, one below the other, each on its own scale.

    Args:
        edges: (B + 1,) ends of the bins of confidence.
        right: (B,) right predictions in each bin.
        wrong: (B,) wrong ones.
        split: Split it was measured on.
        above: Confidence from which an error counts as confident: a line, and the count where it is one of the edges.
            None for neither.
        right_name: What the right ones are called, for example "true positives".
        wrong_name: What the wrong ones are called.

    Returns:
        A figure of two axes that share the confidence; their bars are containers in the order of the bins.

    Raises:
        ShapeError: The arrays differ in the number of bins.
    """
    ends = as_floats(edges, ndim=1, what="edges (B + 1,)")
    counts = {name: as_floats(values, ndim=1, what=f"{name} (B,)") for name, values in
              (("right", right), ("wrong", wrong))}  # fmt: skip
    for name, array in counts.items():
        if len(array) != max(len(ends) - 1, 0):
            raise ShapeError(f"{name} has {len(array)} bins for {len(ends)} edges. Pass one per bin, edges one more.")
    n_right, n_wrong = (int(np.nansum(array)) for array in counts.values())
    figure = style.new_figure(width_in=6.4, height_in=4.8)
    place = None if above is None else np.nonzero(np.isclose(ends, above))[0]
    confident = "" if place is None or not len(place) else (
        f", {int(np.nansum(counts['wrong'][place[0]:]))} of them above {above:g}"
    )  # fmt: skip
    style.state(
        figure,
        f"Confidence on {split}: {n_right} {right_name}, {n_wrong} {wrong_name}{confident}",
        "Each panel has its own scale.",
    )
    if not n_right + n_wrong:
        style.say_nothing_to_draw(figure, "There are no predictions to draw.")
        return figure
    panels = figure.subplots(2, 1, sharex=True)
    for axes, array, name, color in zip(
        panels, counts.values(), (right_name, wrong_name), (RIGHT_COLOR, WRONG_COLOR), strict=True
    ):
        axes.bar(ends[:-1], array, width=np.diff(ends), align="edge", color=color, edgecolor="white", linewidth=0.6)
        style.dress(axes, y_label=name, grid="y")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        if above is not None:
            axes.axvline(above, color=style.QUIET, linestyle="--", linewidth=0.9)
        axes.set_ylim(0, max(float(np.nanmax(array, initial=0)) * 1.08, 1))
    panels[-1].set_xlabel("confidence", **style.lettering())
    panels[-1].set_xlim(0, 1)
    return figure
