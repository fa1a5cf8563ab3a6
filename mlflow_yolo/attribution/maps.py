"""Maps of any number of targets in a batch of images, from one forward pass.

One backward pass serves one target of every image at once, since images do not influence one another.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mlflow_yolo.attribution.cam import Method
from mlflow_yolo.attribution.capture import Pass, forward
from mlflow_yolo.attribution.layers import Layers
from mlflow_yolo.attribution.outputs import Outputs
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.exceptions import ArgumentError

Choose = Callable[[Outputs, Any], Sequence[Sequence[Target]]]
"""From the outputs and the decoded predictions of a batch to the targets of each image."""


@dataclass(frozen=True, eq=False)
class TargetMap:
    """The map of one target.

    Attributes:
        target: What is explained.
        values: (h, w) float32 on the CPU, covering the whole input; not normalised. Where several levels or blocks
            take part it has the finest one's grid, see `combine`.
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
        strict: Whether a target that has no gradient at one of its blocks is an error; otherwise it is 0 there.

    Returns:
        For each image its maps, in the order of its targets.

    Raises:
        ArgumentError: A target that the model does not have, one that has no gradient at the blocks asked for, or
            predictions that are not finite.
    """
    asked = tuple(layers.check(block) for block in blocks)
    kept = asked or layers.by_level
    parts: dict[tuple[int, int], list[_Part]] = defaultdict(list)
    passing = forward(
        network,
        images,
        kept,
        branch=branch,
        needs_gradient=method.needs_gradient,
        is_plain=method.is_sensitive,
    )
    with passing as run:
        targets = choose(run.outputs, run.decoded)
        jobs = [_jobs(run.outputs, image, of) for image, of in enumerate(targets)]
        scores = _scores(jobs)
        for job, part in _parts(run, jobs, method, lambda level: asked or (layers.by_level[level],)):
            if strict and not part.has_gradient:
                raise _no_gradient(job.level, part.block, layers)
            parts[job.image, job.position].append(part)
    blank = torch.zeros(run.activations[kept[0]].shape[-2:])
    return [
        [_target_map(target, parts[i, k], scores[i, k], method, blank) for k, target in enumerate(of)]
        for i, of in enumerate(targets)
    ]


@dataclass(frozen=True, eq=False)
class _Job:
    """The terms of one level of one target: what one backward pass can serve beside those of other images."""

    image: int
    position: int
    level: int
    score: Tensor


@dataclass(frozen=True, eq=False)
class _Part:
    """The map of a job at one block."""

    block: int
    values: Tensor
    has_gradient: bool


def _jobs(outputs: Outputs, image: int, targets: Sequence[Target]) -> list[_Job]:
    """Return an image's jobs, finest level first: the last passes of a batch then need not go back so far."""
    jobs: list[_Job] = []
    for position, target in enumerate(targets):
        terms = target.terms(outputs, image)
        jobs += [
            _Job(image, position, level, terms.values[terms.levels == level].sum())
            for level in sorted(set(terms.levels.tolist()))
        ]
    return sorted(jobs, key=lambda job: job.level)


def _scores(queues: Sequence[Sequence[_Job]]) -> dict[tuple[int, int], float]:
    """Return the value of every target by image and position."""
    jobs = [job for queue in queues for job in queue]
    values = torch.stack([job.score.detach() for job in jobs]).tolist() if jobs else []
    scores: dict[tuple[int, int], float] = defaultdict(float)
    for job, value in zip(jobs, values, strict=True):
        if not math.isfinite(value):
            raise ArgumentError(f"a target is {value}, so it has no map. Check the model's weights and the input.")
        scores[job.image, job.position] += value
    return scores


def _parts(
    run: Pass, queues: Sequence[Sequence[_Job]], method: Method, blocks_of: Callable[[int], Sequence[int]]
) -> Iterator[tuple[_Job, _Part]]:
    """Yield the maps of all jobs, one job of every image at a time; all at once where the target has no influence."""
    if method.needs_gradient:
        rounds = [[job for job in row if job is not None] for row in zip_longest(*queues)]
    else:
        rounds = [[job for queue in queues for job in queue]]
    for number, jobs in enumerate(rounds, start=1):
        blocks = sorted({block for job in jobs for block in blocks_of(job.level)})
        gradients = run.gradients(_total(jobs), blocks, is_last=number == len(rounds)) if method.needs_gradient else {}
        for block in blocks:
            those = [job for job in jobs if block in blocks_of(job.level)]
            images = sorted({job.image for job in those})
            activations = run.activations[block].detach()
            rows = slice(None) if len(images) == len(activations) else images
            gradient = gradients.get(block, activations)[rows]
            made = method.make(activations[rows], gradient).float().cpu()
            seen = (gradient != 0).flatten(1).any(1).tolist() if gradients else [True] * len(images)
            for job in those:
                row = images.index(job.image)
                yield job, _Part(block, made[row].clone(), seen[row])


def _total(jobs: Sequence[_Job]) -> Tensor:
    return torch.stack([job.score for job in jobs]).sum()


def _target_map(target: Target, parts: Sequence[_Part], score: float, method: Method, blank: Tensor) -> TargetMap:
    """Return the map of a target; without a single term, such as the objects of an empty image, it is blank."""
    values = combine([part.values for part in parts], is_signed=method.is_signed) if parts else blank.clone()
    return TargetMap(target, values, tuple(dict.fromkeys(part.block for part in parts)), score)


def combine(maps: Sequence[Tensor], *, is_signed: bool) -> Tensor:
    """Return the sum of maps (h, w) of different levels or blocks on the finest of their grids; one alone as it is.

    Signed maps keep their sum, the evidence they stand for; of the others, whose units differ from block to block,
    each counts with its largest value as 1.
    """
    if len(maps) == 1:
        return maps[0]
    finest = max((tuple(values.shape) for values in maps), key=math.prod)
    return torch.stack([_resized(values, finest, is_signed=is_signed) for values in maps]).sum(0)


def _resized(values: Tensor, grid: tuple[int, ...], *, is_signed: bool) -> Tensor:
    resized = functional.interpolate(values[None, None], grid, mode="bilinear", align_corners=False)[0, 0]
    if is_signed:
        return resized * (values.numel() / resized.numel())
    largest = values.max()
    return resized / largest if bool(largest > 0) else resized


def _no_gradient(level: int, block: int, layers: Layers) -> ArgumentError:
    works = layers.by_level[level]
    what = f"a prediction of stride {layers.strides[works]}"
    return ArgumentError(f"block={block} has no influence on {what}: there is no gradient to map. Use block={works}.")
