"""Maps of any targets of a split: picture by picture, neighbours of one size in one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mlflow_yolo.attribution.cam import Method
from mlflow_yolo.attribution.maps import TargetMap, map_targets
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.explanation.network import ExplainedModel

Progress = Callable[[int], object]
"""Told how many pictures were done."""


def map_pictures(
    model: ExplainedModel,
    read: Callable[[int], Tensor],
    wanted: Mapping[int, Sequence[Target]],
    *,
    method: Method,
    blocks: Sequence[int] = (),
    batch: int = 4,
    progress: Progress = lambda n: None,
) -> dict[int, list[TargetMap]]:
    """Return the maps of the targets of every picture.

    Args:
        model: The model.
        read: From a picture's index to its network input (C, h, w), uint8 or float in [0, 1].
        wanted: By picture, its targets.
        method: How maps are made.
        blocks: Blocks to make them at; none for the default of each target's level.
        batch: Pictures at once.
        progress: Told after every batch how many pictures it held.

    Returns:
        By picture, a map for each target, in its order; 0 where a target has no gradient at the blocks.
    """
    results: dict[int, list[TargetMap]] = {}
    for indices, images in _batches(sorted(wanted), read, batch):
        targets = [wanted[index] for index in indices]
        made = map_targets(
            model.network,
            as_input(images).to(model.device),
            lambda outputs, decoded, chosen=targets: chosen,  # type: ignore[misc]
            method=method,
            layers=model.layers,
            blocks=blocks,
            branch=branch_of(model),
            strict=False,
        )
        results |= dict(zip(indices, made, strict=True))
        progress(len(indices))
    return results


def branch_of(model: ExplainedModel) -> str:
    """Return the branch that a validation's predictions come from: one to many, where the model has both."""
    head = model.head
    both = getattr(head, "one2one_cv2", None) is not None and getattr(head, "cv2", None) is not None
    return "one2many" if both else "auto"


def as_input(images: Tensor) -> Tensor:
    """Return pictures as the network takes them: float32, uint8 divided by 255."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _batches(
    indices: Sequence[int], read: Callable[[int], Tensor], size: int
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield pictures of one shape, in order, at most `size` at once."""
    waiting: list[tuple[int, Tensor]] = []
    for index in indices:
        image = read(index)
        if waiting and (len(waiting) == size or waiting[0][1].shape != image.shape):
            yield tuple(i for i, _ in waiting), torch.stack([image for _, image in waiting])
            waiting = []
        waiting.append((index, image))
    if waiting:
        yield tuple(i for i, _ in waiting), torch.stack([image for _, image in waiting])
