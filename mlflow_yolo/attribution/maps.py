"""Maps of any number of targets in a batch of images, from one forward pass.

One backward pass gives the k-th target of every image at once, since images do not influence one another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import Method
from mlflow_yolo.attribution.capture import Pass, forward
from mlflow_yolo.attribution.layers import Layers
from mlflow_yolo.attribution.outputs import Outputs
from mlflow_yolo.attribution.targets import Target, Terms
from mlflow_yolo.exceptions import ArgumentError

Choose = Callable[[Outputs, Any], Sequence[Sequence[Target]]]
"""From the outputs and the decoded predictions of a batch to the targets of each image."""


@dataclass(frozen=True, eq=False)
class TargetMap:
    """The map of one target.

    Attributes:
        target: What is explained.
        values: (h, w) float32 on the CPU, covering the whole input; not normalised. Where several levels take part it
            has the finest one's grid.
        blocks: The blocks it was made at.
        score: The target's value.
    """

    target: Target
    values: Tensor
    blocks: tuple[int, ...]
    score: float


def map_targets(
    network: nn.Module,
    images: Tensor,
    choose: Choose,
    *,
    method: Method,
    layers: Layers,
    blocks: Sequence[int] = (),
    branch: str = "auto",
    strict: bool = True,
) -> list[list[TargetMap]]:
    """Return the maps of the targets of every image.

    Args:
        network: An Ultralytics model; left as it was.
        images: (B, channels, height, width) network inputs.
        choose: Called once with the outputs and the decoded predictions; returns the targets of each image.
        method: How maps are made.
        layers: The model's blocks.
        blocks: Blocks to make them at; none for the default block of each target's level.
        branch: Of an end-to-end model, see `read_outputs`.
        strict: Whether a target without any gradient at its blocks is an error; otherwise its map is 0.

    Returns:
        For each image its maps, in the order of its targets.

    Raises:
        ArgumentError: A target that the model does not have, or one that has no gradient at the blocks asked for.
    """
    wanted = tuple(layers.check(block) for block in blocks)
    kept = wanted or layers.by_level
    with forward(network, images, kept, branch=branch, needs_gradient=method.needs_gradient) as run:
        targets = choose(run.outputs, run.decoded)
        results: list[list[TargetMap]] = [[] for _ in targets]
        for turn in range(max(map(len, targets), default=0)):
            chosen = {image: of[turn] for image, of in enumerate(targets) if turn < len(of)}
            terms = {image: target.terms(run.outputs, image) for image, target in chosen.items()}
            parts: dict[int, list[_Part]] = {image: [] for image in chosen}
            for part in _parts(run, terms, method, lambda level: wanted or (layers.by_level[level],)):
                parts[part.image].append(part)
            for image, target in chosen.items():
                if not parts[image] and strict:
                    raise _no_gradient(terms[image], layers, kept)
                values = _combined(parts[image], method) if parts[image] else _blank(run, image, kept[0])
                blocks_used = tuple(dict.fromkeys(part.block for part in parts[image]))
                score = float(terms[image].values.detach().sum())
                results[image].append(TargetMap(target, values.float().cpu(), blocks_used, score))
    return results


@dataclass(frozen=True, eq=False)
class _Part:
    """The map of one image's terms of one level at one block."""

    image: int
    block: int
    values: Tensor


def _parts(
    run: Pass, terms: Mapping[int, Terms], method: Method, blocks_of: Callable[[int], Sequence[int]]
) -> Iterator[_Part]:
    """Yield the maps of all images, level by level, those without any gradient left out."""
    for level in sorted({int(level) for found in terms.values() for level in found.levels.unique()}):
        sums = {i: found.values[found.levels == level].sum() for i, found in terms.items() if level in found.levels}
        images = list(sums)
        blocks = blocks_of(level)
        gradients = run.gradients(torch.stack(list(sums.values())).sum(), blocks) if method.needs_gradient else {}
        for block in blocks:
            activations = run.activations[block].detach()[images]
            gradient = gradients[block][images] if gradients else activations
            seen = gradient.abs().amax((1, 2, 3)) > 0
            made = method.make(activations, gradient)
            yield from (_Part(i, block, made[row]) for row, i in enumerate(images) if bool(seen[row]))


def _combined(parts: Sequence[_Part], method: Method) -> Tensor:
    """Return the sum of maps on the finest of their grids.

    Signed maps keep their sum, the evidence they stand for; of the others, whose units differ from block to block,
    each counts with its largest value as 1.
    """
    if len(parts) == 1:
        return parts[0].values
    finest = max((tuple(part.values.shape) for part in parts), key=lambda shape: shape[0] * shape[1])
    total = torch.zeros(finest, device=parts[0].values.device)
    for part in parts:
        values = functional.interpolate(part.values[None, None], finest, mode="bilinear", align_corners=False)[0, 0]
        total = total + _scaled(values, part.values, is_signed=method.is_signed)
    return total


def _scaled(values: Tensor, original: Tensor, *, is_signed: bool) -> Tensor:
    if is_signed:
        return values * (original.numel() / values.numel())
    largest = original.max()
    return values / largest if bool(largest > 0) else values


def _blank(run: Pass, image: int, block: int) -> Tensor:
    return torch.zeros_like(run.activations[block][image, 0].detach())


def _no_gradient(terms: Terms, layers: Layers, blocks: Sequence[int]) -> ArgumentError:
    works = ", ".join(str(layers.by_level[int(level)]) for level in terms.levels.unique())
    asked = ", ".join(map(str, blocks))
    where = f"a prediction of stride {layers.strides[layers.by_level[int(terms.levels[0])]]}"
    return ArgumentError(f"block={asked} has no influence on {where}: there is no gradient to map. Use block={works}.")
