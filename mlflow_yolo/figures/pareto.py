"""What a model scores against what it takes: accuracy, latency and size of all variants, and those to choose from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mlflow_yolo.figures import style
from mlflow_yolo.figures.label_places import place_labels
from mlflow_yolo.figures.seed_range import Floats

LARGEST_AREA = 420.0
"""Area of the largest file's marker, square points."""
_SMALLEST_AREA = 16.0
_FAR_POINTS = 8.0
_LOG_FROM_RATIO = 3.0


@dataclass(frozen=True)
class Point:
    """One variant.

    Attributes:
        name: What is written beside it.
        latency_ms: Median latency at batch 1; nan where it was not measured.
        accuracy: The metric, higher is better; nan where it was not measured.
        size_mb: Size of its file, 10^6 bytes; nan where unknown.
        group: What has one colour, for example the runtime; may be empty.
        error: Why there are no numbers.
    """

    name: str
    latency_ms: float
    accuracy: float
    size_mb: float = nan
    group: str = ""
    error: str = ""

    @property
    def drawable(self) -> bool:
        """Whether both coordinates are known."""
        return isfinite(self.latency_ms) and self.latency_ms > 0 and isfinite(self.accuracy)


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Return for each point whether none is better in one of latency and accuracy without being worse in the other.

    Equal points are on the front together; a point without both numbers is on none.
    """

    def beaten(one: Point) -> bool:
        return any(
            other.latency_ms <= one.latency_ms
            and other.accuracy >= one.accuracy
            and (other.latency_ms < one.latency_ms or other.accuracy > one.accuracy)
            for other in points
            if other.drawable
        )

    return [one.drawable and not beaten(one) for one in points]


def pareto(points: Sequence[Point], *, metric: str, split: str, machine: str, reference: str | None = None) -> Figure:
    """Return the scatter of accuracy against latency, the area of each marker in proportion to the file's size.

    Args:
        points: The variants, each name once.
        metric: Name of the accuracy, for example `mAP50-95`.
        split: Split it was measured on.
        machine: On what the latency was measured, for example "AMD EPYC, 1 thread".
        reference: Name of the variant through which guides are drawn: up and left of them is better in both.

    Returns:
        A figure with a line of gid `front` through the variants that are the best for their latency, collections of
        gid `group:<group>`, and texts of gid `name:<name>`. The latency's scale is logarithmic when the slowest takes
        three times as long as the fastest. Variants without numbers are named below the figure.
    """
    drawn = [one for one in points if one.drawable]
    figure = style.new_figure(width_in=8.8, height_in=5.6 + 0.08 * max(0, len(drawn) - 8))
    style.state(figure, f"{metric} on {split} against latency, {machine}", _reading(points, reference))
    if not drawn:
        style.say_nothing_to_draw(figure, "No variant has both an accuracy and a latency.")
        return figure
    axes = figure.add_subplot()
    style.dress(axes, x_label="median latency of one image [ms]", y_label=f"{metric} on {split}")
    front = pareto_front(drawn)
    _scale(axes, drawn)
    _draw_guides(axes, next((one for one in drawn if one.name == reference), None))
    entries = _draw_points(axes, drawn, front)
    style.legend(axes, [*_front_entry(axes, drawn, front), *entries, *_size_entries(drawn)])
    _write_names(figure, axes, drawn, front)
    return figure


def areas(points: Sequence[Point]) -> Floats:
    """Return the area (N,) of each marker, square points: in proportion to the size, but never too small to see."""
    sizes = np.array([one.size_mb if isfinite(one.size_mb) else 0.0 for one in points])
    largest = sizes.max(initial=0.0)
    return np.asarray(np.maximum(_SMALLEST_AREA, LARGEST_AREA * sizes / largest if largest > 0 else sizes))


def group_colors(points: Sequence[Point]) -> dict[str, str]:
    """Return a colour for each group, in the order in which the groups first appear."""
    groups = list(dict.fromkeys(one.group for one in points))
    return {group: style.PALETTE[i % len(style.PALETTE)] for i, group in enumerate(groups)}


def front_path(points: Sequence[Point], front: Sequence[bool]) -> Floats:
    """Return the corners (M, 2) of the staircase over which nothing lies, from the fastest to the most accurate."""
    best = sorted({(one.latency_ms, one.accuracy) for one, on in zip(points, front, strict=True) if on})
    corners = [best[0]] if best else []
    for (_, below), (x, y) in pairwise(best):
        corners += [(x, below), (x, y)]
    return np.array(corners, dtype=np.float64).reshape(-1, 2)


def is_logarithmic(points: Sequence[Point]) -> bool:
    """Return whether the latencies are so far apart that a linear scale would squeeze the fast ones together."""
    latencies = [one.latency_ms for one in points]
    return max(latencies) >= _LOG_FROM_RATIO * min(latencies)


def limits(points: Sequence[Point]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of the latency's and of the accuracy's axis, with room for markers and names."""
    latency, accuracy = (np.array([getattr(one, what) for one in points]) for what in ("latency_ms", "accuracy"))
    room = max(0.18 * (accuracy.max() - accuracy.min()), 0.02 * abs(float(accuracy.max())), 1e-3)
    y = (float(accuracy.min()) - room, float(accuracy.max()) + room)
    if is_logarithmic(points):
        factor = (latency.max() / latency.min()) ** 0.12
        return (float(latency.min() / factor), float(latency.max() * factor)), y
    span = max(float(latency.max() - latency.min()), 0.1 * float(latency.max()))
    return (max(0.0, float(latency.min()) - 0.15 * span), float(latency.max()) + 0.15 * span), y


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers 1, 2, 5 times a power of ten between two positive ones, and 3 and 7 where those are few."""
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        found = sorted(float(step * power) for power in powers for step in steps if low <= step * power <= high)
        if len(found) >= 4:
            break
    return found


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    (left, right), (bottom, top) = limits(points)
    if is_logarithmic(points):
        axes.set_xscale("log")
        places = ticks(left, right)
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xticks([], minor=True)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _draw_guides(axes: Axes, reference: Point | None) -> None:
    if reference is not None:
        look: dict[str, Any] = {"color": style.QUIET, "linewidth": 0.8, "linestyle": (0, (2, 3)), "zorder": 1.5}
        axes.axvline(reference.latency_ms, **look)
        axes.axhline(reference.accuracy, **look)


def _front_entry(axes: Axes, points: Sequence[Point], front: Sequence[bool]) -> list[tuple[Artist, str]]:
    corners = front_path(points, front)
    axes.plot(corners[:, 0], corners[:, 1], color=style.INK, linewidth=1.2, zorder=2, gid="front")
    mark = Line2D([], [], color=style.INK, linewidth=1.2, marker="o", markerfacecolor="white", markersize=7)
    return [(mark, "Pareto front")]


def _draw_points(axes: Axes, points: Sequence[Point], front: Sequence[bool]) -> list[tuple[Artist, str]]:
    """Draw large ones first, so that no marker hides a smaller one; return the legend's entries of the groups."""
    area = areas(points)
    entries: list[tuple[Artist, str]] = []
    for group, color in group_colors(points).items():
        members = sorted((i for i, one in enumerate(points) if one.group == group), key=lambda i: -area[i])
        collection = axes.scatter(
            [points[i].latency_ms for i in members],
            [points[i].accuracy for i in members],
            s=[float(area[i]) for i in members],
            c=[(color, 1.0 if front[i] else 0.35) for i in members],
            edgecolors=[style.INK if front[i] else color for i in members],
            linewidths=[1.3 if front[i] else 0.6 for i in members],
            zorder=3,
        )
        collection.set_gid(f"group:{group}")
        if group:
            mark = Line2D([], [], linestyle="", marker="o", color=color, markersize=7, markeredgewidth=0)
            entries.append((mark, group))
    return entries


def _size_entries(points: Sequence[Point]) -> list[tuple[Artist, str]]:
    """Return a marker for the legend that shows what the area means: a round size below half the largest."""
    largest = max((one.size_mb for one in points if isfinite(one.size_mb)), default=0.0)
    if not largest:
        return []
    size = max(tick for tick in ticks(largest / 100, largest) if tick <= 0.45 * largest)
    diameter = (LARGEST_AREA * size / largest) ** 0.5
    mark = Line2D([], [], linestyle="", marker="o", markersize=diameter, markeredgewidth=0.8, color=style.QUIET)
    mark.set_markerfacecolor("none")
    return [(mark, f"{size:g} MB")]


def _write_names(figure: Figure, axes: Axes, points: Sequence[Point], front: Sequence[bool]) -> None:
    """Write every name where it hides nothing, with a thin line to its point where it stands far from it."""
    order = sorted(range(len(points)), key=lambda i: (not front[i], points[i].latency_ms))
    texts = [
        axes.annotate(
            style.short(points[i].name),
            (points[i].latency_ms, points[i].accuracy),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            zorder=5,
            gid=f"name:{points[i].name}",
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            **style.lettering(style.SMALL_SIZE, color=style.INK if front[i] else style.QUIET),
        )
        for i in order
    ]
    for text in texts:
        text.set_in_layout(False)
    figure.draw_without_rendering()
    per_point = 72.0 / figure.dpi
    boxes = [text.get_window_extent() for text in texts]
    places = axes.transData.transform([(points[i].latency_ms, points[i].accuracy) for i in order]) * per_point
    sizes = np.array([(box.width, box.height) for box in boxes]) * per_point
    radii = np.sqrt(areas(points)[order]) / 2 + 0.7
    frame = axes.get_window_extent()
    bounds = tuple(float(side) * per_point for side in (frame.x0, frame.y0, frame.x1, frame.y1))
    line = _samples(axes.transData.transform(front_path(points, front)) * per_point)
    centres = place_labels(places, radii, sizes, (bounds[0], bounds[1], bounds[2], bounds[3]), line=line)
    for text, place, centre, radius, size in zip(texts, places, centres, radii, sizes, strict=True):
        text.set_position(tuple(centre - place))
        _draw_leader(axes, text.xy, place, centre, float(radius), size)


def _draw_leader(
    axes: Axes, xy: tuple[float, float], place: Floats, centre: Floats, radius: float, size: Floats
) -> None:
    nearest = np.clip(place, centre - size / 2, centre + size / 2)
    if np.linalg.norm(nearest - place) - radius > _FAR_POINTS:
        axes.annotate("", xy, xytext=tuple(nearest - place), textcoords="offset points", zorder=2.5,
                      arrowprops={"arrowstyle": "-", "color": "#9a9a9a", "linewidth": 0.6, "shrinkA": 0,
                                  "shrinkB": radius}).set_in_layout(False)  # fmt: skip


def _samples(path: Floats) -> Floats:
    """Return places (M, 2) along a path, some four points apart."""
    parts = [np.linspace(start, end, 2 + int(np.linalg.norm(end - start) / 4)) for start, end in pairwise(path)]
    return np.concatenate([np.zeros((0, 2)), *parts])


def _reading(points: Sequence[Point], reference: str | None) -> str:
    parts = ["Upper left is better. Area of a marker: size of the file."]
    parts.append("Outlined: no other variant is faster without scoring less.")
    if any(one.name == reference for one in points):
        parts.append(f"Dotted: {style.short(str(reference))}.")
    missing = [style.short(one.name) for one in points if not one.drawable]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    return " ".join(parts)
