"""Structured pruning: the least important channels of every layer go, and the rest is a stock network again."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import BaseModel

from mlflow_yolo.blocks import block_of, read_blocks
from mlflow_yolo.compression.pruning.checkpoints import read_network, write_network
from mlflow_yolo.compression.pruning.groups import Group, find_groups
from mlflow_yolo.compression.pruning.halves import halve_blocks, join_blocks
from mlflow_yolo.compression.pruning.importance import channel_importance, loss_gradients
from mlflow_yolo.compression.pruning.recalibration import recalibrate
from mlflow_yolo.compression.pruning.record import PruningRecord, size_fields
from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.compression.pruning.size import measure_size, removed_share
from mlflow_yolo.exceptions import ArgumentError

Batches = Callable[[], Iterable[Mapping[str, Any]]]
"""Gives the same training batches at every call; `img` float in [0, 1]."""


def prune(
    checkpoint: Path,
    path: Path,
    settings: PruningSettings,
    *,
    imgsz: int,
    batches: Batches | None = None,
    trust: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PruningRecord:
    """Write a pruned copy of a checkpoint, as a stock checkpoint, and return what was done.

    Args:
        checkpoint: A trained YOLOv8, 11 or 26 (.pt) for detection, segmentation or classification.
        path: The file to write.
        settings: How much goes, and which channels first.
        imgsz: Input size that multiply-adds are counted at, pixels.
        batches: Training batches: for the gradients of `taylor`, and to recalibrate batch norms after each step. None
            leaves batch norms as they were.
        trust: Load a checkpoint that names foreign classes.
        progress: Told after every step how many are done, and of how many.

    Raises:
        CheckpointError: No checkpoint, or one that pruning does not know.
        ArgumentError: A ratio that leaves a layer without channels, a part that the model has not, `taylor` without
            batches.
    """
    started = time.perf_counter()
    network = read_network(checkpoint, trust=trust)
    before = measure_size(network, imgsz)
    prune_network(network, settings, batches=batches, progress=progress)
    after = measure_size(network, imgsz)
    write_network(network, path)
    return PruningRecord(
        method="structured",
        ratio=settings.ratio,
        ratio_reached=removed_share(before, after),
        **size_fields(before, after, checkpoint, path),
        imgsz=imgsz,
        importance=settings.importance,
        round_to=settings.round_to,
        steps=settings.steps,
        parts=dict(settings.parts),
        recalibrated=batches is not None,
        seconds=time.perf_counter() - started,
    )


def prune_network(
    network: BaseModel,
    settings: PruningSettings,
    *,
    batches: Batches | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Remove channels from a stock network in place; see `prune`. It is a stock network afterwards."""
    if settings.importance == "taylor" and batches is None:
        raise ArgumentError("importance=taylor needs training images. Give data, or use importance=l2.")
    part_of = _part_of_blocks(network, settings)
    plan: dict[str, tuple[int, float]] = {}  # channels at the start and ratio, by group
    for step in range(1, settings.steps + 1):
        halve_blocks(network)
        groups = find_groups(network)
        if not plan:
            plan = {g.name: (g.n_channels, settings.ratio_of(part_of[block_of(f"{g.name}.") or 0])) for g in groups}
            _check_plan(plan)
        keep = {name: kept_channels(n, ratio * step / settings.steps, settings) for name, (n, ratio) in plan.items()}
        doomed = _least_important(network, groups, keep, settings.importance, batches)
        for group in groups:
            group.remove(doomed[group.name])
        join_blocks(network)
        if batches is not None:
            recalibrate(network, batches())
        if progress is not None:
            progress(step, settings.steps)


def kept_channels(n: int, ratio: float, settings: PruningSettings) -> int:
    """Return how many of `n` channels stay: the multiple of `round_to` nearest to n (1 - ratio), at least one multiple.

    A layer narrower than `round_to`, and one with a ratio of 0, keeps all.
    """
    if n <= settings.round_to or ratio == 0:
        return n
    multiples = max(1, round(n * (1 - ratio) / settings.round_to))
    return min(n, multiples * settings.round_to)


def _least_important(
    network: BaseModel, groups: tuple[Group, ...], keep: Mapping[str, int], kind: str, batches: Batches | None
) -> dict[str, list[int]]:
    """Return, by group, the channels beyond the number to keep, the least important first; the lower index on a tie."""
    if kind == "taylor" and batches is not None:
        with loss_gradients(network, batches()):
            worth = {group.name: channel_importance(group, kind) for group in groups}
    else:
        worth = {group.name: channel_importance(group, kind) for group in groups}
    return {
        group.name: worth[group.name].argsort(stable=True)[: max(0, group.n_channels - keep[group.name])].tolist()
        for group in groups
    }


def _part_of_blocks(network: BaseModel, settings: PruningSettings) -> dict[int, str]:
    """Return the part of every block, after checking that the model has the parts that settings name."""
    parts = {block.index: block.part for block in read_blocks(network.yaml)}
    for part in settings.parts:
        if part not in parts.values():
            raise ArgumentError(
                f"ratio of the {part}: this model has none. Use {', '.join(dict.fromkeys(parts.values()))}."
            )
    return parts


def _check_plan(plan: Mapping[str, tuple[int, float]]) -> None:
    """Check that something goes and that of every layer something remains."""
    if not any(ratio for _, ratio in plan.values()):
        raise ArgumentError("every part has ratio 0: nothing would be pruned. Give one of them a ratio above 0.")
    for name, (n, ratio) in plan.items():
        if round(n * (1 - ratio)) < 1:
            raise ArgumentError(
                f"ratio={ratio:g} leaves nothing of {name}, which has {n} channels. Use at most {1 - 1 / n:.2f}."
            )
