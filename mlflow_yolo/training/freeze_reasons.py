"""Why a depth of freezing is advised, in sentences that follow from the numbers."""

from collections.abc import Sequence
from statistics import fmean

from mlflow_yolo.training.block_need import LITTLE, BlockAdvice, little_need, needs_of

_MOVED = 0.1
"""Nats from which on a batch norm is said to have moved: a shift by 0.45 standard deviations."""


def reasons(
    rows: Sequence[BlockAdvice], depth: int, *, data: str, source: str | None, new_head: bool
) -> tuple[str, ...]:
    """Return why this depth, one sentence each.

    Args:
        rows: One a block.
        depth: The advised depth.
        data: Name of the data.
        source: Name of the data they were held against, or None.
        new_head: Whether the head is a new one, for another number of classes.
    """
    found = [_need(rows, depth, source), _noise(rows, depth), _drift(rows, depth)]
    if new_head:
        found.append(f"{data} has not as many classes as the model: the head is new, and its errors reach every block.")
    return tuple(reason for reason in found if reason)


def _need(rows: Sequence[BlockAdvice], depth: int, source: str | None) -> str:
    """Return what the needs say."""
    needs = [(row, row.need) for row in rows[: len(needs_of(rows))] if row.need is not None]
    if not needs:
        return "No gradient could be held against anything (a single batch, or no finite values): nothing is advised."
    yardstick = f"its gradient on {source}" if source else "the noise of its gradient"
    little = f"a need is how many times {yardstick} a block's gradient is, and up to {little_need(rows):.1f} is little"
    if depth == 0:
        least, value = min(needs, key=lambda pair: pair[1])
        return (
            f"No leading blocks need little together: {needs[0][0].name} needs {needs[0][1]:.1f}, the least of all is "
            f"{value:.1f} in {least.name} ({little})."
        )
    frozen = fmean(value for row, value in needs if row.index < depth)
    trained = [value for row, value in needs if row.index >= depth]
    beside = f", those behind them {fmean(trained):.1f}" if trained else ""
    return f"The first {depth} blocks need {frozen:.1f} on average{beside} ({little})."


def _noise(rows: Sequence[BlockAdvice], depth: int) -> str:
    """Return in how many of the blocks to freeze the gradient is hardly more than noise."""
    known = [row.gsnr for row in rows[:depth] if row.gsnr is not None]
    if not known:
        return ""
    n_noise = sum(gsnr < LITTLE**2 for gsnr in known)
    return f"In {n_noise} of the {len(known)} blocks with weights to freeze, the gradient is hardly more than noise."


def _drift(rows: Sequence[BlockAdvice], depth: int) -> str:
    """Return where batch norms have moved most, and whether freezing would keep them there."""
    moved = [(row.bn_drift, row) for row in rows if row.bn_drift is not None]
    if not moved:
        return ""
    drift, most = max(moved, key=lambda pair: pair[0])
    beside = "" if most.source_drift is None else f" ({most.source_drift:.2g} on the source data)"
    start = f"The batch norms of {most.name} have moved most, by {drift:.2g} nats a channel{beside}"
    if drift < _MOVED:
        return f"{start}: little."
    return f"{start}: frozen, they would keep their old statistics." if most.index < depth else f"{start}: it trains."
