"""What a few batches say about each block before training: its need, its gradient, and how far its inputs moved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlflow_yolo.figures import style

_NAN = float("nan")
_ROW_IN = 0.24
_FROZEN_COLOR = "#56B4E9"
_TARGET_COLOR = "#D55E00"


@dataclass(frozen=True)
class BlockEvidence:
    """One row of the figure; NaN where nothing is known.

    Attributes:
        index: Position in the model.
        name: `04-C3k2`.
        need: How many times its yardstick the gradient is.
        gradient: Norm of the gradient over that of the weights.
        source_gradient: The same on the source data.
        drift: Divergence of its batch norms' inputs, nats a channel.
        source_drift: The same on the source data.
    """

    index: int
    name: str
    need: float = _NAN
    gradient: float = _NAN
    source_gradient: float = _NAN
    drift: float = _NAN
    source_drift: float = _NAN


def freeze_advice(
    blocks: Sequence[BlockEvidence], *, depth: int, little: float, data: str, source: str | None = None
) -> Figure:
    """Return three axes with a common row a block: need, relative gradient, drift of the batch norms.

    Args:
        blocks: In the model's order; those without a finite value are left out.
        depth: Leading blocks that are advised to be frozen; their rows are tinted.
        little: The need up to which it speaks for freezing, a dashed line.
        data: Name of the target data.
        source: Name of the data that it was held against, None without.

    Returns:
        Axes of gid `need`, `gradient` and `drift`; lines of gid `<axes>:target` and `<axes>:source`, the needs as one
        line of gid `needs`; the tint has the gid `frozen`.
    """
    known = [block for block in blocks if np.isfinite([block.need, block.gradient, block.drift]).any()]
    figure = style.new_figure(width_in=10.0, height_in=2.0 + _ROW_IN * max(len(known), 4))
    if not known:
        style.state(figure, f"What a few batches of {data} say about the blocks")
        style.say_nothing_to_draw(figure, "No block has a gradient or a batch norm to measure.")
        return figure
    yardstick = f"its gradient on {source}" if source else "the noise of its gradient"
    frozen = f"freeze the first {depth} blocks" if depth else "freeze nothing"
    style.state(
        figure,
        f"A hint from a few batches of {data}: {frozen}",
        f"Need: how many times {yardstick} a block's gradient is; up to the dashed line it speaks for freezing. "
        "Gradient: norm over that of the weights. Drift: divergence of the batch norms' inputs from what they keep, "
        "each behind blocks that are corrected already." + (f" Orange: {data}; grey: {source}." if source else ""),
    )
    axes = figure.subplots(1, 3, sharey=True)
    rows = np.arange(len(known))
    _draw(axes[0], rows, [block.need for block in known], gid="needs", color=style.INK)
    axes[0].axvline(little, color=style.BASELINE_COLOR, linestyle="--", linewidth=1.0, gid="little")
    for one, name, target, other in (
        (axes[1], "gradient", [b.gradient for b in known], [b.source_gradient for b in known]),
        (axes[2], "drift", [b.drift for b in known], [b.source_drift for b in known]),
    ):
        _draw(one, rows, other, gid=f"{name}:source", color=style.BASELINE_COLOR)
        _draw(one, rows, target, gid=f"{name}:target", color=_TARGET_COLOR)
    n_frozen = sum(block.index < depth for block in known)
    for one, gid, label in zip(
        axes, ("need", "gradient", "drift"), ("need", "relative gradient norm", "drift, nats a channel"), strict=True
    ):
        one.set_gid(gid)
        one.set_xscale("log")
        style.dress(one, x_label=label, grid="x")
        if n_frozen:
            one.axhspan(-0.5, n_frozen - 0.5, color=_FROZEN_COLOR, alpha=0.18, linewidth=0, gid="frozen", zorder=0)
    axes[0].set_yticks(rows, [style.short(block.name) for block in known], **style.lettering(style.SMALL_SIZE))
    axes[0].set_ylim(len(known) - 0.5, -0.5)
    return figure


def _draw(axes: Axes, rows: npt.NDArray[np.int64], values: Sequence[float], *, gid: str, color: str) -> None:
    """Draw one dot a block; what is not above 0 has no place on a logarithmic axis."""
    array = np.asarray(values, dtype=np.float64)
    kept = np.isfinite(array) & (array > 0)
    if kept.any():
        axes.plot(array[kept], rows[kept], linestyle="", marker="o", markersize=5, color=color, gid=gid, zorder=3)
