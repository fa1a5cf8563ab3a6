"""The answer of a freeze ablation in one figure: score by configuration, and the difference to the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlflow_yolo.figures import style
from mlflow_yolo.figures.lettering import wrapped
from mlflow_yolo.figures.seed_range import as_floats

_NAN = float("nan")
_ROW_IN = 0.46


@dataclass(frozen=True)
class ConfigurationEffect:
    """What one configuration scored and how it differs from the baseline; all numbers come from elsewhere.

    Attributes:
        name: The configuration, for example `10` or `backbone (11)`.
        scores: (n_seeds,) the metric of each seed; NaN is missing.
        mean: Mean over seeds.
        low: Lower end of the mean's 95 % interval; NaN where there is none (one seed).
        high: Upper end.
        difference: Mean minus the baseline's; NaN for the baseline and where unknown.
        difference_low: Lower end of the difference's 95 % bootstrap interval.
        difference_high: Upper end.
        verdict: In words, for example `no difference shown (n=3)`.
    """

    name: str
    scores: npt.ArrayLike
    mean: float
    low: float = _NAN
    high: float = _NAN
    difference: float = _NAN
    difference_low: float = _NAN
    difference_high: float = _NAN
    verdict: str = ""


def depth_effect(
    effects: Sequence[ConfigurationEffect],
    *,
    metric: str,
    split: str,
    n_images: int | None = None,
    dimension: str = "frozen",
) -> Figure:
    """Return the headline figure: left the score of each configuration, right its difference to the baseline.

    Args:
        effects: One per configuration, the baseline first.
        metric: Name of the metric, for example `mAP50-95`.
        split: Split it was measured on.
        n_images: Images that the bootstrap drew from, named below.
        dimension: Word above the names of the configurations.

    Returns:
        A figure of two axes with common rows, gid `scores` and `differences`: lines of gid `seeds:<name>`,
        `mean:<name>`, `difference:<name>`; intervals are lines of gid `interval:<name>` and
        `difference interval:<name>`. The baseline's mean is a dashed line.

    Raises:
        ShapeError: Scores are not (n_seeds,).
    """
    figure = style.new_figure(width_in=10.0, height_in=1.9 + _ROW_IN * max(len(effects), 2))
    if not effects:
        style.state(figure, f"{metric} on {split} by configuration")
        style.say_nothing_to_draw(figure, "There is no configuration to draw.")
        return figure
    images = f" over {n_images} {split} images" if n_images is not None else ""
    style.state(
        figure,
        f"{metric} on {split} by configuration, and its difference to the baseline “{style.short(effects[0].name)}”",
        "Left: small dots are seeds, the large one their mean with its 95 % interval over seeds (from two seeds on); "
        f"dashed: the baseline's mean. Right: difference of the means with its 95 % bootstrap interval{images}.",
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.0])
    left.set_gid("scores")
    right.set_gid("differences")
    looks = style.looks(effect.name for effect in effects)
    labels = []
    for row, effect in enumerate(effects):
        look = looks[effect.name]
        scores = as_floats(effect.scores, ndim=1, what=f"scores of {effect.name!r} (n_seeds,)")
        labels.append(f"{style.short(effect.name)}  (n={int(np.isfinite(scores).sum())})")
        _draw_scores(left, effect, scores, row=row, look=look)
        if row > 0:
            _draw_difference(right, effect, row=row, look=look)
    if np.isfinite(effects[0].mean):
        left.axvline(effects[0].mean, color=style.BASELINE_COLOR, linestyle="--", linewidth=1.0, gid="baseline")
    right.axvline(0, color=style.BASELINE_COLOR, linestyle="--", linewidth=1.0, gid="zero")
    style.dress(left, x_label=f"{metric} on {split}", grid="x")
    style.dress(right, x_label=f"difference to {style.short(effects[0].name)}", grid="x")
    left.set_yticks(range(len(effects)), labels, **style.lettering())
    left.set_title(dimension, loc="left", x=0, ha="right", **style.lettering(style.SMALL_SIZE, color=style.QUIET))
    left.set_ylim(len(effects) - 0.45, -0.55)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    right.tick_params(axis="y", labelleft=False)
    _widen(right, effects)
    _write_verdicts(right, effects)
    return figure


def _draw_scores(
    axes: Axes, effect: ConfigurationEffect, scores: npt.NDArray[np.float64], *, row: int, look: style.Look
) -> None:
    """Draw seeds, mean and interval of one configuration."""
    known = scores[np.isfinite(scores)]
    if _known(effect.low, effect.high):
        axes.plot([effect.low, effect.high], [row, row], color=look.color, linewidth=2.2, solid_capstyle="butt",
                  gid=f"interval:{effect.name}", zorder=3)  # fmt: skip
    axes.plot(known, np.full(len(known), row + 0.2), linestyle="", marker="o", markersize=3.8, color=look.color,
              alpha=0.6, markeredgewidth=0, gid=f"seeds:{effect.name}", zorder=3)  # fmt: skip
    if _known(effect.mean):
        axes.plot([effect.mean], [row], linestyle="", marker="o", markersize=8, color=look.color,
                  markeredgecolor="white", markeredgewidth=1.0, gid=f"mean:{effect.name}", zorder=4)  # fmt: skip


def _draw_difference(axes: Axes, effect: ConfigurationEffect, *, row: int, look: style.Look) -> None:
    """Draw the difference to the baseline and its interval."""
    if _known(effect.difference_low, effect.difference_high):
        axes.plot([effect.difference_low, effect.difference_high], [row, row], color=look.color, linewidth=2.2,
                  solid_capstyle="butt", gid=f"difference interval:{effect.name}", zorder=3)  # fmt: skip
    if _known(effect.difference):
        axes.plot([effect.difference], [row], linestyle="", marker="o", markersize=8, color=look.color,
                  markeredgecolor="white", markeredgewidth=1.0, gid=f"difference:{effect.name}", zorder=4)  # fmt: skip


def _known(*values: float) -> bool:
    return bool(np.isfinite(values).all())


def _widen(axes: Axes, effects: Sequence[ConfigurationEffect]) -> None:
    """Let the axis of differences hold zero and everything drawn, also when nothing or one point is."""
    ends = [
        v
        for e in effects[1:]
        for v in (e.difference, e.difference_low, e.difference_high)
        if v is not None and np.isfinite(v)
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.08 * (high - low) if high > low else 0.01
    axes.set_xlim(low - margin, high + margin)


def _write_verdicts(axes: Axes, effects: Sequence[ConfigurationEffect]) -> None:
    """Write difference and verdict to the right of each row; the layout makes room for them."""
    place = axes.get_yaxis_transform()
    for row, effect in enumerate(effects):
        text = "baseline" if row == 0 else effect.verdict
        number = (
            f"{effect.difference:+.3f}  ".replace("-", "\N{MINUS SIGN}")
            if row > 0 and _known(effect.difference)
            else ""
        )
        color = style.QUIET if row == 0 else style.INK
        lines = wrapped(f"{number}{text}", width_in=2.6, font_size=style.SMALL_SIZE)
        axes.text(1.03, row, lines, transform=place, va="center", ha="left", gid=f"verdict:{effect.name}",
                  **style.lettering(style.SMALL_SIZE, color=color))  # fmt: skip
