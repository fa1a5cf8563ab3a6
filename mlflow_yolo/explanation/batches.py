"""Maps of any targets of a split: picture by picture, neighbours of one size in one batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mlflow_yolo.attribution.cam import Method
from mlflow_yolo.attribution.maps import TargetMap, map_targets
from mlflow_yolo.attribution.targets import Target
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.stages import Stages


@dataclass(frozen=True, eq=False)
class Mapper:
    """Makes the maps of a split's pictures.

    Attributes:
        model: The model.
        read: From a picture's index to its network input (C, h, w), uint8 or float in [0, 1].
        method: How maps are made.
        blocks: Blocks to make them at; none for the default of each target's level.
        batch: Pictures at once.
        stages: Told about progress.
    """

    model: ExplainedModel
    read: Callable[[int], Tensor]
    method: Method
    blocks: tuple[int, ...] = ()
    batch: int = 4
    stages: Stages = field(default_factory=Stages)

    def maps(self, wanted: Mapping[int, Sequence[Target]], *, stage: str) -> dict[int, list[TargetMap]]:
        """Return, by picture, a map for each of its targets, in their order; 0 where a target has no gradient.

        Args:
            wanted: By picture, its targets.
            stage: What the maps are for, as shown beside the progress.
        """
        results: dict[int, list[TargetMap]] = {}
        done = self.stages.begin(stage, len(wanted))
        for indices, images in _batches(sorted(wanted), self.read, self.batch):
            targets = [wanted[index] for index in indices]
            made = map_targets(
                self.model.network,
                as_input(images).to(self.model.device),
                lambda outputs, decoded, chosen=targets: chosen,  # type: ignore[misc]
                method=self.method,
                layers=self.model.layers,
                blocks=self.blocks,
                branch=branch_of(self.model),
                strict=False,
            )
            results |= dict(zip(indices, made, strict=True))
            done(len(indices))
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
