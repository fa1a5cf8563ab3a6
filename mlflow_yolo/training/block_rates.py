"""Learning rates that differ from block to block, for any of Ultralytics' trainers and optimizers.

The optimizer's groups are split by block. Between steps every part keeps the rate of the whole group, so that warm-up,
schedule, resuming and the metrics `lr/pg0`, `lr/pg1`, … are what they are without; for the time of a step it is
multiplied with the block's own factor. A rate scaled once at the start would not stay in proportion: Ultralytics warms
biases up from `warmup_bias_lr`, whatever their own rate is.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mlflow_yolo.blocks import block_of


class BlockRates:
    """What comes before a trainer whose blocks have learning rates of their own.

    A derived class says which (`rate_factor`) and which blocks always have the same (`rate_class`); several of them
    on one trainer multiply.
    """

    def rate_factor(self, block: int | None) -> float:
        """Return the factor of a block's learning rate at the present step; None is what lies in no block."""
        return 1.0

    def rate_class(self, block: int | None) -> tuple[Hashable, ...]:
        """Return what is the same for blocks whose factors are always the same."""
        return ()

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the base's optimizer, its groups split by block."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)  # type: ignore[misc]
        blocks = {id(parameter): block_of(name) for name, parameter in student_of(model).named_parameters()}
        split_groups(optimizer, lambda parameter: blocks.get(id(parameter)), self.rate_class)
        return optimizer

    def optimizer_step(self) -> None:
        """Do the base's step with the rates of the blocks."""
        groups = self.optimizer.param_groups
        whole = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.rate_factor(group["block"])
        try:
            super().optimizer_step()  # type: ignore[misc]
        finally:
            for group, rate in zip(groups, whole, strict=True):
                group["lr"] = rate

    def run_callbacks(self, event: str) -> None:
        """Tell the base's listeners; learning rates are those of the base's groups, not of every part."""
        if event == "on_train_epoch_end":
            self.lr = {f"lr/pg{group['whole']}": group["lr"] for group in self.optimizer.param_groups}
        super().run_callbacks(event)  # type: ignore[misc]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Stand for what the trainer has."""


def split_groups(
    optimizer: torch.optim.Optimizer,
    block_of_parameter: Callable[[nn.Parameter], int | None],
    kind: Callable[[int | None], Hashable],
) -> None:
    """Split the groups of an optimizer that has not stepped yet; every part keeps the options of its group.

    Args:
        optimizer: Its groups get an entry `whole`, the number of the group they were, and `block`, one of their blocks.
        block_of_parameter: The block of a parameter, None for one outside of all.
        kind: Parameters of blocks for which this is the same stay together.
    """
    split: list[dict[str, Any]] = []
    for number, group in enumerate(optimizer.param_groups):
        parts: dict[Hashable, dict[str, Any]] = {}
        for parameter in group["params"]:
            block = block_of_parameter(parameter)
            part = parts.setdefault(kind(block), {**group, "params": [], "whole": number, "block": block})
            part["params"].append(parameter)
        split += parts.values() or [{**group, "whole": number, "block": None}]
    optimizer.param_groups = split


def student_of(model: Any) -> Any:
    """Return the network that trains, out of the wrappers for several GPUs, compilation and a teacher."""
    from ultralytics.utils.torch_utils import unwrap_model

    unwrapped = unwrap_model(model)
    return getattr(unwrapped, "student_model", unwrapped)
