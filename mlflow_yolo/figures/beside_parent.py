"""A model beside the one it was made from: what it costs and scores, one small panel a measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.figures import style


@dataclass(frozen=True)
class Measure:
    """One panel.

    Attributes:
        name: What is measured, with its unit.
        value: Of the model; nan where it is not known.
        parent: Of its parent; nan where it is not known.
        value_high: End of a whisker, for example a 95th percentile; nan for none.
        parent_high: The same of the parent.
        less_is_better: Which way is good.
    """

    name: str
    value: float
    parent: float = math.nan
    value_high: float = math.nan
    parent_high: float = math.nan
    less_is_better: bool = True


def beside_parent(measures: Sequence[Measure], *, model: str, parent: str | None, about: str, reading: str) -> Figure:
    """Return one panel of two bars per measure: the model above, its parent below in grey.

    Args:
        measures: The panels, from left to right; those without a value are left out.
        model: Name of the model.
        parent: Name of its parent, None where there is none.
        about: The title, a statement.
        reading: How it is read: machine, data, what a whisker is.

    Returns:
        A figure whose bars are containers of each axes.
    """
    known = [one for one in measures if math.isfinite(one.value)]
    figure = style.new_figure(width_in=7.0, height_in=2.2)
    style.state(figure, about, reading)
    if not known:
        style.say_nothing_to_draw(figure, "Nothing was measured.")
        return figure
    names = [style.short(model), *([style.short(parent)] if parent else [])]
    for axes, one in zip(figure.subplots(1, len(known), sharey=True, squeeze=False).flat, known, strict=True):
        _draw(axes, one, n_bars=len(names))
        axes.set_yticks(range(len(names)), names, **style.lettering(style.SMALL_SIZE))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
    return figure


def _draw(axes: Axes, one: Measure, *, n_bars: int) -> None:
    values, highs = (one.value, one.parent)[:n_bars], (one.value_high, one.parent_high)[:n_bars]
    colors = (style.PALETTE[0], style.BASELINE_COLOR)[:n_bars]
    drawn = [value if math.isfinite(value) else 0.0 for value in values]
    axes.barh(range(n_bars), drawn, height=0.62, color=colors, alpha=0.8)
    longest = max([*drawn, *(high for high in highs if math.isfinite(high))])
    for place, (value, high) in enumerate(zip(values, highs, strict=True)):
        if math.isfinite(high):
            axes.hlines(place, value, high, color=style.INK, linewidth=1.0)
        text = f"{value:.4g}" if math.isfinite(value) else "not known"
        end = high if math.isfinite(high) else value if math.isfinite(value) else 0.0
        axes.annotate(text, (end, place), xytext=(3, 0), textcoords="offset points", va="center",
                      **style.lettering(style.SMALL_SIZE))  # fmt: skip
    style.dress(axes, x_label=f"{one.name}\n({'less' if one.less_is_better else 'more'} is better)", grid="x")
    axes.set_xlim(0, 1.7 * longest if longest > 0 else 1.0)
    axes.locator_params(axis="x", nbins=3)
