"""The value of every trial of a search in the order of their numbers, and the best one so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.figures import style
from mlflow_yolo.figures.seed_range import Floats

_KINDS = {
    "finished": ("o", style.PALETTE[0], "finished"),
    "infeasible": ("X", style.QUIET, "breaks a constraint"),
    "pruned": ("v", style.QUIET, "pruned, at its last epoch"),
}
"""Marker, colour and words of each kind of trial."""


@dataclass(frozen=True)
class TrialPoint:
    """One trial.

    Attributes:
        number: Its number.
        value: Its value; nan where it has none.
        kind: `finished`, `infeasible` (finished, but beyond a constraint), `pruned` or `failed`.
        default: Whether it has the values that one starts with.
    """

    number: int
    value: float
    kind: str = "finished"
    default: bool = False


def best_so_far(points: Sequence[TrialPoint], *, maximize: bool) -> Floats:
    """Return (N, 2) number and best value of the finished trials up to it, from the first finished one on."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda one: one.number):
        if point.kind == "finished" and isfinite(point.value):
            values = [point.value, *(value for _, value in best[-1:])]
            best.append((point.number, max(values) if maximize else min(values)))
    return np.array(best, dtype=np.float64).reshape(-1, 2)


def trial_history(points: Sequence[TrialPoint], *, metric: str, maximize: bool = True) -> Figure:
    """Return the figure of a search: a marker for every trial with a value, a staircase for the best one so far.

    Args:
        points: The trials, in any order.
        metric: Name of the value, the split included: `final/mAP50-95`.
        maximize: Whether higher is better.

    Returns:
        A figure with lines of gid `best`, `kind:<kind>` and, around the default, `default`. Trials without a value are
        counted below the figure.
    """
    figure = style.new_figure(width_in=8.4, height_in=4.0)
    drawn = [point for point in points if isfinite(point.value)]
    style.state(figure, f"{metric} of {len(drawn)} trials, and the best so far", _reading(points, maximize))
    if not drawn:
        style.say_nothing_to_draw(figure, "No trial has a value yet.")
        return figure
    axes = figure.add_subplot()
    best = best_so_far(points, maximize=maximize)
    last = max(point.number for point in points)
    if len(best):
        steps = np.vstack([best, [last, best[-1, 1]]])
        axes.plot(*steps.T, drawstyle="steps-post", color=style.INK, linewidth=1.3, gid="best", zorder=2)
    entries: list[tuple[Artist, str]] = [(axes.lines[0], "best so far")] if len(best) else []
    for kind, (marker, color, words) in _KINDS.items():
        some = [(point.number, point.value) for point in drawn if point.kind == kind]
        if some:
            (line,) = axes.plot(
                *zip(*some, strict=True), marker, color=color, markersize=5, gid=f"kind:{kind}", zorder=3
            )
            entries.append((line, f"{words} (n={len(some)})"))
    if some := [(point.number, point.value) for point in drawn if point.default]:
        look: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": style.INK, "markersize": 10}
        (line,) = axes.plot(*zip(*some, strict=True), "o", gid="default", zorder=4, **look)
        entries.append((line, "the default"))
    style.dress(axes, x_label="trial", y_label=metric)
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    style.legend(axes, entries)
    return figure


def _reading(points: Sequence[TrialPoint], maximize: bool) -> str:
    n_without = sum(not isfinite(point.value) for point in points)
    missing = f" {n_without} without a value are not drawn." if n_without else ""
    return f"{'Higher' if maximize else 'Lower'} is better.{missing}"
