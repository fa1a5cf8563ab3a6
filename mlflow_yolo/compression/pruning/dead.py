"""Channels that do nothing, taken out, with the proof that nothing changes."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import BaseModel

from mlflow_yolo.compression.pruning.checkpoints import read_network, write_network
from mlflow_yolo.compression.pruning.groups import WRITERS, Group, all_outputs, find_groups
from mlflow_yolo.compression.pruning.halves import Halved, halve_blocks, join_blocks
from mlflow_yolo.compression.pruning.outputs import output_change
from mlflow_yolo.compression.pruning.recalibration import some
from mlflow_yolo.compression.pruning.record import PruningRecord, size_fields
from mlflow_yolo.compression.pruning.size import layer_widths, measure_size, removed_share
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.statistics.channel_status import DEAD
from mlflow_yolo.statistics.channels import ChannelHealth

Mask = npt.NDArray[np.bool_]


def dead_channels(health: ChannelHealth, *, openness: float | None = None) -> dict[str, Mask]:
    """Return, by layer, which channels are dead.

    Args:
        health: Measured on at least 256 images, or rare objects' channels look dead too (`enough_images`).
        openness: Channels whose mean |f'(z)| is below this count as dead as well. None takes those that `health`
            calls dead.

    Raises:
        ArgumentError: The threshold is not in [0, 1].
    """
    if openness is not None and not 0 <= openness <= 1:
        raise ArgumentError(f"openness={openness} is not in [0, 1]. Use a small threshold: 0.01.")
    dead = health.status == DEAD
    if openness is not None:
        dead = dead | (health.openness < openness)
    masks: dict[str, Mask] = {}
    for layer in dict.fromkeys(health.layer.tolist()):
        rows = np.flatnonzero(health.layer == layer)
        masks[layer] = dead[rows[np.argsort(health.channel[rows])]].astype(np.bool_)
    return masks


def prune_dead(
    checkpoint: Path,
    path: Path,
    dead: Mapping[str, Sequence[bool] | Mask],
    *,
    imgsz: int,
    batches: Callable[[], Iterable[Mapping[str, Any]]],
    tolerance: float | None = None,
    trust: bool = False,
) -> PruningRecord:
    """Write a copy of a checkpoint without its dead channels, and return what was done and how outputs changed.

    A channel goes when every layer that makes it is dead there (a sum has several). What it put out on average is
    added to the layers that read it: a channel stuck at one value need not be stuck at 0.

    Args:
        checkpoint: A trained YOLOv8, 11 or 26 (.pt) for detection, segmentation or classification.
        path: The file to write.
        dead: By layer (`model.4.cv1`), which of its output channels are dead; see `dead_channels`.
        imgsz: Input size that multiply-adds are counted at, pixels.
        batches: Gives the images to average over and to compare outputs on, `img` float in [0, 1].
        tolerance: Largest change of a class probability to accept; None accepts any.
        trust: Load a checkpoint that names foreign classes.

    Raises:
        CheckpointError: No checkpoint, or one that pruning does not know.
        ArgumentError: A layer that the model has not, or with another number of channels; no batch.
        WorkError: Outputs change by more than the tolerance; nothing is written.
    """
    started = time.perf_counter()
    network = read_network(checkpoint, trust=trust)
    parent, before = deepcopy(network), measure_size(network, imgsz)
    remove_dead(network, dead, batches())
    after, change = measure_size(network, imgsz), output_change(parent, network, batches())
    if tolerance is not None and change.score > tolerance:
        raise WorkError(
            f"without its dead channels the model's scores change by up to {change.score:.3g}, more than "
            f"tolerance={tolerance:g}: they are not dead on these images. Measure their health on more images."
        )
    write_network(network, path)
    return PruningRecord(
        method="dead-channels",
        ratio=None,
        ratio_reached=removed_share(before, after),
        **size_fields(before, after, checkpoint, path),
        imgsz=imgsz,
        seconds=time.perf_counter() - started,
        output_change=change.output,
        score_change=change.score,
        n_images=change.n_images,
    )


def remove_dead(network: BaseModel, dead: Mapping[str, Any], batches: Iterable[Mapping[str, Any]]) -> None:
    """Remove dead channels from a stock network in place; see `prune_dead`. It is a stock network afterwards."""
    masks = _checked(dead, layer_widths(network))
    halve_blocks(network)
    groups = find_groups(network)
    doomed = _doomed(groups, _halved_masks(masks, network), network)
    inputs = _mean_inputs(network, batches)
    norms = {conv.conv: conv.bn for conv in network.modules() if isinstance(conv, Conv)}
    for group in groups:  # all of them before the first is removed: indices among inputs move then
        for layer, channels in group.readers(doomed[group.name]):
            _absorb(layer, channels, inputs[layer], norms.get(layer))
    for group in groups:
        group.remove(doomed[group.name])
    join_blocks(network)


def _checked(dead: Mapping[str, Any], widths: Mapping[str, int]) -> dict[str, Mask]:
    """Return the masks as arrays after checking that they fit the layers."""
    masks = {layer: np.asarray(mask, dtype=np.bool_) for layer, mask in dead.items()}
    for layer, mask in masks.items():
        if mask.shape != (widths.get(layer),):
            raise ArgumentError(
                f"dead channels of {layer}: {len(mask)} given, the model has {widths.get(layer, 'no such layer')}. "
                f"Use the channel health of this very model."
            )
    return masks


def _halved_masks(masks: Mapping[str, Mask], network: BaseModel) -> dict[str, Mask]:
    """Return masks for a halved network: those of `cv1` are cut in two like its channels."""
    result = dict(masks)
    for name, block in network.named_modules():
        if isinstance(block, Halved) and (mask := result.pop(f"{name}.cv1", None)) is not None:
            width = block.cv0.conv.out_channels
            result |= {f"{name}.cv0": mask[:width], f"{name}.cv1": mask[width:]}
    return result


def _doomed(groups: Sequence[Group], masks: Mapping[str, Mask], network: BaseModel) -> dict[str, list[int]]:
    """Return, by group, the channels dead in all its layers: never all of them, of two halves equally many."""
    doomed = {}
    for group in groups:
        alive = np.zeros(group.n_channels, dtype=np.bool_)
        layers = [masks.get(layer, alive) for layer, _ in group.writers]
        doomed[group.name] = np.flatnonzero(np.logical_and.reduce(layers))[: group.n_channels - 1].tolist()
    for name, block in network.named_modules():
        halves = [half for half in (f"{name}.cv0", f"{name}.cv1") if isinstance(block, Halved) and half in doomed]
        n = min((len(doomed[half]) for half in halves), default=0)
        doomed |= {half: doomed[half][:n] for half in halves}
    return doomed


def _mean_inputs(network: BaseModel, batches: Iterable[Mapping[str, Any]]) -> dict[nn.Module, Tensor]:
    """Return (C,) the mean of every input channel of every convolution and linear layer over images and positions."""
    sums: dict[nn.Module, Tensor] = {}
    n_batches = 0

    def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].mean([0, *range(2, inputs[0].ndim)])
        sums[layer] = sums[layer] + values if layer in sums else values

    with ExitStack() as hooks:
        for layer in network.modules():
            if isinstance(layer, WRITERS):
                hooks.callback(layer.register_forward_pre_hook(see).remove)
        for batch in some(batches):
            n_batches += 1
            with torch.no_grad():
                all_outputs(network, batch["img"])
    return {layer: total / n_batches for layer, total in sums.items()}


@torch.no_grad()
def _absorb(layer: Any, channels: Sequence[int], inputs: Tensor, norm: Any) -> None:
    """Let a layer put out without some inputs what it puts out when they are constant, away from the border.

    Args:
        layer: A convolution, a transposed one, or a linear layer.
        channels: The inputs it will lose.
        inputs: (C,) the mean of each of its inputs.
        norm: Its batch norm; None where it has a bias instead.
    """
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    lost = weight[:, channels].flatten(2).sum(2) if weight.ndim == 4 else weight[:, channels]
    if isinstance(layer, nn.ConvTranspose2d):
        lost = lost / (layer.stride[0] * layer.stride[1])  # a pixel out gets its share of the kernel only
    share = lost @ inputs[channels]
    if norm is not None:
        norm.running_mean -= share
    else:
        layer.bias += share
