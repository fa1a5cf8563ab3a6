"""How wide each block of a network is before and after pruning."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures import style

_GONE_COLOR = "#d5d5d5"


def widths(blocks: Sequence[str], before: Sequence[int], after: Sequence[int], *, title: str) -> Figure:
    """Return one bar per block: the channels that were kept, and behind them those that there were.

    Args:
        blocks: Name of each block in the network's order, for example `04-C3k2`.
        before: Output channels of all of the block's layers together, before pruning.
        after: The same after pruning.
        title: A statement of what was pruned.

    Returns:
        A figure with two containers of bars, `before` first; beside each bar stands what is left, and what share is
        gone. Blocks without a layer of their own are left out.

    Raises:
        ShapeError: The three do not have the same length.
    """
    if not len(blocks) == len(before) == len(after):
        raise ShapeError(f"{len(blocks)} blocks, {len(before)} and {len(after)} widths do not fit. Pass one per block.")
    rows = [(name, int(b), int(a)) for name, b, a in zip(blocks, before, after, strict=True) if b]
    figure = style.new_figure(width_in=8.0, height_in=1.9 + 0.21 * max(len(rows), 6))
    total_before, total_after = sum(b for _, b, _ in rows), sum(a for _, _, a in rows)
    gone = f": {total_before} channels to {total_after} ({_change(total_before, total_after)})" if rows else ""
    style.state(figure, title + gone, "Channels that the layers of a block put out, added up.")
    if not rows:
        style.say_nothing_to_draw(figure, "There are no blocks to draw.")
        return figure
    axes = figure.add_subplot()
    _draw(axes, rows)
    style.dress(axes, x_label="channels", grid="x")
    axes.set_yticks(range(len(rows)), [style.short(name) for name, _, _ in rows], **style.lettering(style.SMALL_SIZE))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    style.legend(axes, [(Patch(color=_GONE_COLOR), "before"), (Patch(color=style.PALETTE[0]), "after")])
    return figure


def _draw(axes: Axes, rows: Sequence[tuple[str, int, int]]) -> None:
    places, wide, kept = np.arange(len(rows)), [b for _, b, _ in rows], [a for _, _, a in rows]
    axes.barh(places, wide, height=0.74, color=_GONE_COLOR, zorder=2)
    axes.barh(places, kept, height=0.74, color=style.PALETTE[0], zorder=3)
    for place, (_, b, a) in enumerate(rows):
        axes.annotate(f"{a} ({_change(b, a)})", (max(a, b), place), xytext=(4, 0), textcoords="offset points",
                      va="center", **style.lettering(7.5, color=style.INK if a != b else style.QUIET))  # fmt: skip
    axes.set_xlim(0, 1.18 * max(max(a, b) for _, b, a in rows))


def _change(before: int, after: int) -> str:
    """Return the change in words: `-30 %`, or `unchanged`."""
    return (
        "unchanged" if before == after else f"{100 * (after - before) / before:+.0f} %".replace("-", "\N{MINUS SIGN}")
    )
