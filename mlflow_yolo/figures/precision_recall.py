"""Precision against recall, one line per configuration."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats, over_seeds

N_RECALLS = 101


def precision_recall(
    curves: Mapping[str, npt.ArrayLike],
    *,
    split: str,
    subject: str = "mean over classes, IoU 0.50",
    baseline: str | None = None,
) -> Figure:
    """Return the overlay of precision-recall curves: a line for the mean over seeds, a band from lowest to highest.

    Args:
        curves: Per configuration (n_seeds, 101), precision at recall 0, 0.01, … 1; NaN where undefined.
        split: Split it was measured on.
        subject: Classes and IoU threshold that the curves stand for.
        baseline: Configuration drawn in grey; None means the first.

    Returns:
        A figure with one line and one band per configuration, gid `mean:<name>` and `range:<name>`.

    Raises:
        ShapeError: A curve is not (n_seeds, 101).
    """
    figure = style.new_figure(width_in=7.2, height_in=4.8)
    style.state(
        figure,
        f"Precision at each recall on {split}, {subject}",
        "Line: mean over seeds; band: lowest to highest seed. P: mean precision over the 101 recalls. n: seeds.",
    )
    axes = figure.add_subplot()
    recalls = np.linspace(0, 1, N_RECALLS)
    entries: list[tuple[Artist, str]] = []
    for name, look in style.looks(curves, baseline=baseline).items():
        values = as_floats(curves[name], ndim=2, what=f"curves[{name!r}] (n_seeds, {N_RECALLS})")
        if values.shape[1] != N_RECALLS:
            raise ShapeError(
                f"curves[{name!r}] has {values.shape[1]} recalls. Pass precision at the {N_RECALLS} recalls 0 to 1."
            )
        seeds = over_seeds(values)
        axes.fill_between(
            recalls, seeds.low, seeds.high, color=look.color, alpha=0.1, linewidth=0, gid=f"range:{name}", zorder=2
        )
        axes.plot(
            recalls, seeds.mean, color=look.color, linestyle=look.line, linewidth=1.6, gid=f"mean:{name}", zorder=3
        )
        known = seeds.mean[np.isfinite(seeds.mean)]
        area = f"P={known.mean():.3f}" if len(known) else "no value"
        entries.append((style.handle(look, marker=False), f"{style.short(name)} ({area}, n={seeds.n_seeds})"))
    style.dress(axes, x_label="recall", y_label="precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    style.legend(axes, entries)
    return figure
