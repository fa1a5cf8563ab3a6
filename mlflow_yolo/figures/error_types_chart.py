"""What each type of detection error costs in average precision."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mlflow_yolo.figures import style

LABELS = {
    "cls": "Cls: wrong class, right place",
    "loc": "Loc: right class, poorly placed",
    "both": "Both: wrong class, poorly placed",
    "dupe": "Dupe: found once more",
    "bkg": "Bkg: nothing there",
    "miss": "Miss: not found",
    "false_positive": "any false positive",
    "false_negative": "any false negative",
}
"""The types of TIDE in its order; the last two overlap the others."""
OVERLAPPING = ("false_positive", "false_negative")


def error_types_chart(
    delta_ap: Mapping[str, float],
    *,
    split: str,
    counts: Mapping[str, int] | None = None,
    ap: float | None = None,
) -> Figure:
    """Return the figure of ΔAP: what AP50 would gain if the errors of one type were corrected.

    Args:
        delta_ap: Type to gain in AP, 0 to 1; the types of `LABELS`, others under their own name. NaN where it could
            not be measured.
        split: Split it was measured on.
        counts: Type to number of errors, written beside it.
        ap: The AP50 that the gains come on top of, named in the title.

    Returns:
        A figure with a bar per type (gid `delta:<type>`) in TIDE's order, other names last; those that overlap the
        others in grey.
    """
    names = [name for name in LABELS if name in delta_ap] + [name for name in delta_ap if name not in LABELS]
    figure = style.new_figure(width_in=7.2, height_in=1.7 + 0.34 * max(len(names), 3))
    total = "" if ap is None or not np.isfinite(ap) else f" (AP50 now {ap:.3f})"
    style.state(
        figure,
        f"AP50 gained on {split} if one type of error were corrected{total}",
        "Each type is corrected alone; gains do not add up. Grey: overlaps the others."
        + (" In brackets: errors." if counts else ""),
    )
    if not names:
        style.say_nothing_to_draw(figure, "There are no errors to draw.")
        return figure
    axes = figure.add_subplot()
    values = np.array([delta_ap[name] for name in names], dtype=np.float64)
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        color = style.QUIET if name in OVERLAPPING else style.PALETTE[0]
        axes.barh([place], [value], height=0.66, color=color, gid=f"delta:{name}")
        known = bool(np.isfinite(value))
        text = f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") if known else "\N{EN DASH}"
        axes.annotate(text, (max(value, 0.0) if known else 0.0, place), xytext=(4, 0), textcoords="offset points",
                      va="center", **style.lettering(style.SMALL_SIZE))  # fmt: skip
    axes.axvline(0, color="#9a9a9a", linewidth=0.6)
    style.dress(axes, x_label="gain in AP50", grid="x")
    axes.set_yticks(range(len(names)), [_label(name, counts or {}) for name in names], **style.lettering())
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    low, high = min(0.0, np.nanmin(values, initial=0)), max(0.01, np.nanmax(values, initial=0))
    axes.set_xlim(low * 1.1, high * 1.18)
    return figure


def _label(name: str, counts: Mapping[str, int]) -> str:
    return LABELS.get(name, style.short(name)) + (f" ({counts[name]})" if name in counts else "")
