"""How much each block asks to be trained, and which depth of freezing follows from it.

Gradients of different blocks cannot be compared: those of the first ones are always the largest for their weights.
Each is therefore held against a yardstick of its own, the same gradient on the data that the model was trained on, or
where these are not given its own noise. How many times its yardstick a gradient is, is here called the block's need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_yolo.blocks import Block

if TYPE_CHECKING:
    from mlflow_yolo.training.block_evidence import Evidence

LITTLE = 2.0
"""A need that is little whatever the others are: noise alone gives 1, and so do data like those of the training."""

_LITTLE_SHARE = 0.5
"""Share of the average need that is little beside the others."""


@dataclass(frozen=True)
class BlockAdvice:
    """What a few batches say about one block; None where there is nothing to say.

    Attributes:
        index: Position in the model.
        name: `04-C3k2`.
        part: `backbone`, `neck` or `head`.
        relative_gradient: Norm of the mean gradient over that of the weights.
        source_gradient: The same on the source data.
        gsnr: Signal to noise of the gradient, near 1 for noise alone.
        bn_drift: Mean divergence of its batch norms' inputs from what they keep, nats a channel.
        source_drift: The same on the source data.
        need: How many times its yardstick the gradient is.
    """

    index: int
    name: str
    part: str
    relative_gradient: float | None = None
    source_gradient: float | None = None
    gsnr: float | None = None
    bn_drift: float | None = None
    source_drift: float | None = None
    need: float | None = None


def block_rows(blocks: Sequence[Block], target: "Evidence", source: "Evidence | None") -> tuple[BlockAdvice, ...]:
    """Return one row a block from what was measured on the target data and, where given, on the source data."""
    rows = []
    for block in blocks:
        signal, known = target.signals.get(block.index), source.signals.get(block.index) if source else None
        gradient = _finite(signal.relative if signal else None)
        source_gradient = _finite(known.relative if known else None)
        gsnr = _finite(signal.gsnr if signal else None)
        if source is None:
            need = None if gsnr is None else math.sqrt(gsnr)
        else:
            need = gradient / source_gradient if gradient is not None and source_gradient else None
        rows.append(
            BlockAdvice(
                index=block.index,
                name=block.name,
                part=block.part,
                relative_gradient=gradient,
                source_gradient=source_gradient,
                gsnr=gsnr,
                bn_drift=_finite(target.drift.get(block.index)),
                source_drift=_finite(source.drift.get(block.index)) if source else None,
                need=_finite(need),
            )
        )
    return tuple(rows)


def little_need(rows: Sequence[BlockAdvice]) -> float:
    """Return up to which need a block speaks for freezing: 2, or half the average of all blocks but the head."""
    needs = [need for need in needs_of(rows) if need is not None]
    return max(LITTLE, _LITTLE_SHARE * sum(needs) / len(needs)) if needs else LITTLE


def depth_scores(rows: Sequence[BlockAdvice]) -> tuple[float, ...]:
    """Return what speaks for freezing each depth, from 0 (always 0.0) to everything but the head.

    Every frozen block adds what `little_need` is above its need, or takes away what it is below; blocks without weights
    add nothing. Depths are thereby ranked, and not only one of them named. Source: ours.
    """
    little = little_need(rows)
    scores = [0.0]
    for need in needs_of(rows):
        scores.append(scores[-1] + (0.0 if need is None else little - need))
    return tuple(scores)


def best_depth(rows: Sequence[BlockAdvice]) -> int:
    """Return the depth with the highest score, the shallowest of equal ones."""
    scores = depth_scores(rows)
    return scores.index(max(scores))


def needs_of(rows: Sequence[BlockAdvice]) -> list[float | None]:
    """Return the needs of all blocks but the head, in order."""
    return [row.need for row in rows if row.part != "head"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
