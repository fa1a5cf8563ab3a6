"""F1 of every class, one dot per configuration with the range of its seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats, SeedRange, as_floats, over_seeds

MOST_CLASSES = 40


def f1_per_class(
    scores: Mapping[str, npt.ArrayLike],
    *,
    names: Sequence[str],
    split: str,
    n_objects: Sequence[int] | None = None,
    baseline: str | None = None,
) -> Figure:
    """Return the figure of F1 per class: a dot for the mean over seeds, a bar from lowest to highest seed.

    Args:
        scores: Per configuration (n_seeds, n_classes), F1 in [0, 1]; NaN for a class without objects.
        names: Class names, n_classes of them.
        split: Split it was measured on.
        n_objects: True objects per class, written beside the name.
        baseline: Configuration drawn in grey; None means the first.

    Returns:
        A figure whose classes run from the highest mean F1 at the top to the lowest, those without a value last. Of
        more than 40 classes those 40 are drawn for which the configurations' means lie farthest apart. Dots of a
        configuration are a line with gid `mean:<name>`; its x are the values, y the places.

    Raises:
        ShapeError: Scores, names and n_objects do not agree on the number of classes.
    """
    seeds = _summaries(scores, len(names))
    if n_objects is not None and len(n_objects) != len(names):
        raise ShapeError(f"n_objects has {len(n_objects)} entries for {len(names)} class names. Pass one per class.")
    looks = style.looks(seeds, baseline=baseline)
    order = _order(np.array([seeds[name].mean for name in seeds]).reshape(len(seeds), len(names)))
    row_in = min(max(0.1 + 0.05 * len(looks), 0.24), 0.4)
    figure = style.new_figure(width_in=8.4, height_in=1.7 + row_in * max(len(order), 5))
    if not len(order) or not looks:
        style.state(figure, f"F1 per class on {split}")
        style.say_nothing_to_draw(figure, "There are no classes or no configurations to draw.")
        return figure
    left_out = (
        f" {len(order)} of {len(names)} classes: those where the configurations' means lie farthest apart."
        if len(order) < len(names)
        else ""
    )
    style.state(
        figure,
        f"F1 per class on {split}: mean over seeds",
        "Bar: lowest to highest seed. n: seeds."
        + (" In brackets: true objects." if n_objects is not None else "")
        + left_out,
    )
    axes = figure.add_subplot()
    places = np.arange(len(order), dtype=np.float64)
    entries: list[tuple[Artist, str]] = []
    step = 0.74 / max(len(looks), 2)
    for i, (name, look) in enumerate(looks.items()):
        summary = seeds[name]
        y = places + (i - (len(looks) - 1) / 2) * step
        axes.hlines(y, summary.low[order], summary.high[order], color=look.color, linewidth=1.1, alpha=0.6, zorder=2)
        axes.plot(
            summary.mean[order],
            y,
            linestyle="",
            marker=look.marker,
            markersize=4,
            color=look.color,
            gid=f"mean:{name}",
            zorder=3,
        )
        entries.append((style.handle(look), f"{style.short(name)} (n={summary.n_seeds})"))
    for place in places[:-1]:
        axes.axhline(place + 0.5, color=style.GRID, linewidth=0.5)
    style.dress(axes, x_label="F1 (0 to 1)", grid="x")
    labels = [style.short(names[i]) + (f" ({n_objects[i]})" if n_objects is not None else "") for i in order]
    axes.set_yticks(places, labels, **style.lettering(style.SMALL_SIZE))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    for handle, _ in entries:
        handle.set(linestyle="")
    style.legend(axes, entries)
    return figure


def _summaries(scores: Mapping[str, npt.ArrayLike], n_classes: int) -> dict[str, SeedRange]:
    """Return the range over seeds per configuration, checked against the number of classes."""
    summaries = {}
    for name, values in scores.items():
        array = as_floats(values, ndim=2, what=f"scores[{name!r}] (n_seeds, n_classes)")
        if array.shape[1] != n_classes:
            raise ShapeError(
                f"scores[{name!r}] has {array.shape[1]} classes for {n_classes} names. Pass one score per class."
            )
        summaries[name] = over_seeds(array)
    return summaries


def _order(means: Floats) -> npt.NDArray[np.intp]:
    """Return the classes to draw, from the highest mean down; `means` is (n_configurations, n_classes)."""
    over_configurations = over_seeds(means)
    chosen = np.arange(means.shape[1])
    if len(chosen) > MOST_CLASSES:
        spread = np.nan_to_num(over_configurations.high - over_configurations.low, nan=-1.0)
        chosen = np.argsort(-spread, kind="stable")[:MOST_CLASSES]
    level = np.nan_to_num(over_configurations.mean[chosen], nan=-1.0)
    return np.sort(chosen)[np.argsort(-level[np.argsort(chosen)], kind="stable")]
