"""A place before and after every optimizer step of an Ultralytics trainer.

Ultralytics calls no event there: `on_train_batch_end` comes after `optimizer_step`, which unscales, clips and clears
the gradients. The bound method itself is therefore replaced on this one trainer, and given back afterwards.
"""

from collections.abc import Callable
from typing import Any


class OptimizerHook:
    """Calls `before` and `after` around `trainer.optimizer_step`, once however often it is attached.

    Args:
        before: Called with the trainer while the accumulated gradients are there, scaled and not yet clipped.
        after: Called with the trainer after the step. Neither may raise: it would reach the training.
    """

    def __init__(self, before: Callable[[Any], None], after: Callable[[Any], None]) -> None:
        self._before, self._after = before, after
        self._trainer: Any = None
        self._original: Callable[[], None] | None = None
        self._was_instance_attribute = False

    def attach(self, trainer: Any) -> None:
        """Wrap the trainer's step; one that another trainer still has is given back first."""
        self.detach()
        self._trainer, self._original = trainer, trainer.optimizer_step
        self._was_instance_attribute = "optimizer_step" in vars(trainer)
        trainer.optimizer_step = self._step

    def detach(self) -> None:
        """Give the trainer its own step back; a second call changes nothing."""
        if self._trainer is not None:
            if self._was_instance_attribute:
                self._trainer.optimizer_step = self._original
            else:
                vars(self._trainer).pop("optimizer_step", None)
        self._trainer = self._original = None

    def _step(self) -> None:
        trainer, original = self._trainer, self._original
        assert original is not None
        self._before(trainer)
        original()
        self._after(trainer)


def images_of_step(trainer: Any) -> int:
    """Return over how many images the gradients of a step were added up: those of all batches and processes."""
    return int(trainer.batch_size) * int(trainer.accumulate)


def loss_scale(trainer: Any) -> Any:
    """Return what the gradients are still multiplied with: the scaler's own tensor, which costs no wait; 1 without."""
    scaler = trainer.scaler
    if not scaler.is_enabled():
        return 1.0
    scale = getattr(scaler, "_scale", None)
    return scaler.get_scale() if scale is None else scale
