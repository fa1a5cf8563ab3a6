"""The feature maps that heads get: their widths, how to see them, and a student's brought to a teacher's width."""

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Classify


def head_widths(network: Any) -> list[int]:
    """Return the number of channels of every feature map that the head of a detector or classifier gets."""
    head = network.model[-1]
    branches = [head.conv] if isinstance(head, Classify) else head.cv2
    return [next(m for m in branch.modules() if isinstance(m, nn.Conv2d)).in_channels for branch in branches]


class HeadInput:
    """The feature maps that a network's head gets in one forward pass, kept by a hook that removes itself."""

    def __init__(self) -> None:
        self._maps: list[Tensor] = []
        self._handle: Any = None

    def watch(self, network: Any) -> None:
        """Keep what the head gets in the next forward pass of `network`."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = network.model[-1].register_forward_pre_hook(self._keep)

    def take(self) -> list[Tensor]:
        """Return the maps (B, C, H, W) of the watched pass, and let go of them."""
        maps, self._maps = self._maps, []
        return maps

    def _keep(self, _head: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._handle.remove()
        self._maps = list(arguments[0]) if isinstance(arguments[0], list | tuple) else [arguments[0]]


class Projectors(nn.Module):
    """A 1x1 convolution a level, from the student's to the teacher's number of channels; nothing where they agree.

    One set serves every loss that compares channel with channel.
    """

    def __init__(self, student: list[int], teacher: list[int]) -> None:
        """Make them, with random first weights.

        The random numbers that come after are as if none had been drawn: augmentation and the order of the data stay
        those of a training without a teacher.

        Args:
            student: Channels of each level, see `head_widths`.
            teacher: As `student`.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.levels = nn.ModuleList(
                nn.Identity() if own == its else nn.Conv2d(own, its, 1)
                for own, its in zip(student, teacher, strict=True)
            )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the student's maps with the teacher's channels."""
        return [project(level) for project, level in zip(self.levels, maps, strict=True)]
