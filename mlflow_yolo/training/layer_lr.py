"""Layer-wise decay of the learning rate: early blocks, which hold the most general features, change the least.

Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2
(discriminative fine-tuning), with the blocks of a YOLO model as layers.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from mlflow_yolo.training.block_rates import BlockRates, student_of


def decaying(base: type[Any], lr_decay: float) -> type[Any]:
    """Return a trainer like `base` whose head has the full learning rate, and each block `lr_decay` times the next's.

    Args:
        base: Any of Ultralytics' trainers, or one derived from it.
        lr_decay: The factor, above 0 and at most 1.
    """
    return type(f"Decaying{base.__name__}", (Decaying, base), {"lr_decay": lr_decay})


class Decaying(BlockRates):
    """What `decaying` puts before a trainer."""

    lr_decay: float
    _last_block = 0

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the base's optimizer with a group for every block; how many there are is looked up."""
        self._last_block = len(student_of(model).model) - 1
        return super().build_optimizer(model, *args, **kwargs)

    def rate_factor(self, block: int | None) -> float:
        """Return the base's factor times `lr_decay` to the power of the blocks that come after this one."""
        return super().rate_factor(block) * decay_factor(block, lr_decay=self.lr_decay, last_block=self._last_block)

    def rate_class(self, block: int | None) -> tuple[Hashable, ...]:
        """Return the block: each has a rate of its own."""
        return (*super().rate_class(block), block)


def decay_factor(block: int | None, *, lr_decay: float, last_block: int) -> float:
    """Return lr_decay ** (last_block - block), the part of the full learning rate that a block gets; 1 for None."""
    return 1.0 if block is None else lr_decay ** (last_block - block)
