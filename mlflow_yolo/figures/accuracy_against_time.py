"""What a configuration scores against what its training cost."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import as_floats

_UNITS = ((2 * 3600.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def accuracy_against_time(
    seconds: Mapping[str, npt.ArrayLike],
    scores: Mapping[str, npt.ArrayLike],
    *,
    metric: str,
    split: str,
    baseline: str | None = None,
) -> Figure:
    """Return the scatter of a metric against training time: a small dot per child, a large one for their mean.

    Args:
        seconds: Per configuration (n_seeds,), seconds of training; NaN is missing.
        scores: Per configuration (n_seeds,), the metric of the same children.
        metric: Name of the metric, for example `mAP50-95`.
        split: Split it was measured on.
        baseline: Configuration drawn in grey; None means the first.

    Returns:
        A figure with lines of gid `children:<name>` and `mean:<name>`. Time is in seconds below 3 minutes, in minutes
        below 2 hours, else in hours. A child that lacks either value is left out of dots and mean.

    Raises:
        ShapeError: The two mappings have different configurations or numbers of children.
    """
    if set(seconds) != set(scores):
        odd = sorted(set(seconds) ^ set(scores))
        raise ShapeError(f"only one of seconds and scores has {', '.join(odd)}. Pass the same configurations in both.")
    pairs = {name: _pairs(name, seconds[name], scores[name]) for name in seconds}
    longest = max((float(pair[:, 0].max()) for pair in pairs.values() if len(pair)), default=0.0)
    divisor, unit = next((divisor, unit) for least, divisor, unit in _UNITS if longest >= least)
    figure = style.new_figure(width_in=7.6, height_in=4.6)
    style.state(
        figure,
        f"{metric} on {split} against training time",
        "Small: one training; large: mean of the configuration. n: trainings. Upper left is better.",
    )
    axes = figure.add_subplot()
    entries: list[tuple[Artist, str]] = []
    for name, look in style.looks(pairs, baseline=baseline).items():
        time, score = pairs[name][:, 0] / divisor, pairs[name][:, 1]
        axes.plot(time, score, linestyle="", marker=look.marker, markersize=4, color=look.color, alpha=0.55,
                  markeredgewidth=0, gid=f"children:{name}", zorder=3)  # fmt: skip
        if len(time):
            axes.plot([time.mean()], [score.mean()], linestyle="", marker=look.marker, markersize=10, color=look.color,
                      markeredgecolor="white", markeredgewidth=1.2, gid=f"mean:{name}", zorder=4)  # fmt: skip
        mark = style.handle(look)
        mark.set_linestyle("")
        entries.append((mark, f"{style.short(name)} (n={len(time)})"))
    style.dress(axes, x_label=f"training time [{unit}]", y_label=metric)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    style.legend(axes, entries)
    return figure


def _pairs(name: str, seconds: npt.ArrayLike, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return (n, 2) time and score of the children that have both."""
    time = as_floats(seconds, ndim=1, what=f"seconds[{name!r}] (n_seeds,)")
    score = as_floats(scores, ndim=1, what=f"scores[{name!r}] (n_seeds,)")
    if len(time) != len(score):
        raise ShapeError(f"configuration {name!r} has {len(time)} times and {len(score)} scores. Pass one per child.")
    both = np.stack([time, score], axis=1)
    return both[np.isfinite(both).all(axis=1)]
