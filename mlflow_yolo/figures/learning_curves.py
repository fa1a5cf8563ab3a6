"""A metric over the epochs, one line per configuration with the range of its seeds."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats, over_seeds

_MOST_MARKED_EPOCHS = 30


def learning_curves(
    curves: Mapping[str, npt.ArrayLike],
    *,
    metric: str,
    split: str,
    unit: str = "",
    baseline: str | None = None,
) -> Figure:
    """Return the figure of a metric by epoch: a line for the mean over seeds, a band from lowest to highest seed.

    Args:
        curves: Per configuration (n_seeds, n_epochs), column 0 being epoch 1; NaN is a missing epoch. Configurations
            may differ in both numbers; one without any value stays in the legend.
        metric: Name of what is drawn, for example `mAP50-95`.
        split: Split it was measured on.
        unit: Unit of the metric; empty when dimensionless.
        baseline: Configuration drawn in grey; None means the first.

    Returns:
        A figure with one line and one band per configuration, gid `mean:<name>` and `range:<name>`.

    Raises:
        ShapeError: A curve is not of two dimensions.
    """
    figure = style.new_figure(width_in=8.4, height_in=4.4)
    style.state(
        figure,
        f"{metric} on {split} by epoch: mean over seeds",
        "Band: lowest to highest seed. n: seeds. Where a seed has ended or lacks a value, the mean is of the others.",
    )
    axes = figure.add_subplot()
    entries: list[tuple[Artist, str]] = []
    longest = 1
    for name, look in style.looks(curves, baseline=baseline).items():
        values = as_floats(curves[name], ndim=2, what=f"curves[{name!r}] (n_seeds, n_epochs)")
        seeds = over_seeds(values)
        epochs = np.arange(1, values.shape[1] + 1)
        longest = max(longest, values.shape[1])
        marker = look.marker if len(epochs) <= _MOST_MARKED_EPOCHS else ""
        axes.fill_between(
            epochs, seeds.low, seeds.high, color=look.color, alpha=0.13, linewidth=0, gid=f"range:{name}", zorder=2
        )
        axes.plot(
            epochs,
            seeds.mean,
            color=look.color,
            linestyle=look.line,
            linewidth=1.6,
            marker=marker,
            markersize=3.5,
            gid=f"mean:{name}",
            zorder=3,
        )
        entries.append((style.handle(look, marker=bool(marker)), f"{style.short(name)} (n={seeds.n_seeds})"))
    style.dress(axes, x_label="epoch", y_label=f"{metric} [{unit}]" if unit else metric)
    axes.set_xlim(0.5, 1.5) if longest == 1 else axes.set_xlim(1, longest)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    style.legend(axes, entries)
    return figure
