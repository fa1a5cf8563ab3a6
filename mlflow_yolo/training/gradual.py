"""Gradual unfreezing: groups of blocks begin to train one after the other, the deepest first.

Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3; the ramp of
the learning rate is ours: warm-up is long over when a block begins to train, and its moments start from zero.
"""

from collections.abc import Hashable
from typing import Any

from mlflow_yolo.training.block_rates import BlockRates
from mlflow_yolo.training.plan import Stage


def unfreezing(base: type[Any], stage: Stage) -> type[Any]:
    """Return a trainer like `base` that unfreezes blocks as `stage.unfreeze` says.

    A block that begins to train does so whole: its weights, and its BatchNorm layers' statistics, which stand still
    before. Its learning rate rises over `stage.ramp_epochs`; that of all others is as it would be. What is to be
    frozen at the start is the trainer's own argument `freeze`; a resumed training takes up the schedule where it was.
    """
    starts = {block: epoch for epoch, blocks in stage.unfreeze for block in blocks}
    return type(f"Unfreezing{base.__name__}", (Unfreezing, base), {"starts": starts, "ramp_epochs": stage.ramp_epochs})


class Unfreezing(BlockRates):
    """What `unfreezing` puts before a trainer.

    Attributes:
        starts: The epoch, counted from 0, at whose start a block begins to train, by block.
        ramp_epochs: Epochs over which its learning rate rises.
    """

    starts: dict[int, int]
    ramp_epochs: float
    freeze_layer_names: list[str]
    _n_batches = 0

    def _model_train(self) -> None:
        """Unfreeze what is due, then set the modes as the base does; called at the start of every epoch."""
        due = {f"model.{block}." for block, epoch in self.starts.items() if epoch <= self.epoch}
        if due & set(self.freeze_layer_names):
            self._unfreeze(due)
        super()._model_train()  # type: ignore[misc]

    def _unfreeze(self, names: set[str]) -> None:
        """Let parameters train whose names hold one of `names`, unless they are frozen for another reason."""
        self.freeze_layer_names = [name for name in self.freeze_layer_names if name not in names]
        for name, parameter in self.model.named_parameters():
            is_due = any(part in name for part in names) and not any(part in name for part in self.freeze_layer_names)
            if is_due and parameter.is_floating_point():
                parameter.requires_grad = True

    def run_callbacks(self, event: str) -> None:
        """Tell the base's listeners, and count the batches of the epoch."""
        if event == "on_train_epoch_start":
            self._n_batches = 0
        elif event == "on_train_batch_start":
            self._n_batches += 1
        super().run_callbacks(event)

    def rate_factor(self, block: int | None) -> float:
        """Return the base's factor times how far the block's ramp has risen."""
        if block not in self.starts:
            return super().rate_factor(block)
        progress = self.epoch + self._n_batches / len(self.train_loader) - self.starts[block]
        return super().rate_factor(block) * ramp(progress, self.ramp_epochs)

    def rate_class(self, block: int | None) -> tuple[Hashable, ...]:
        """Return when the block begins to train: those of one group have the same rate."""
        return (*super().rate_class(block), self.starts.get(block))  # type: ignore[arg-type]


def ramp(progress: float, ramp_epochs: float) -> float:
    """Return the part of the learning rate that a block gets `progress` epochs after it began to train, 0 to 1."""
    if progress <= 0 or ramp_epochs <= 0:
        return float(progress > 0)
    return min(1.0, progress / ramp_epochs)
