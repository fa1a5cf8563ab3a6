"""A place before and after every optimizer step of an Ultralytics trainer.

Ultralytics calls no event there: `on_train_batch_end` comes after `optimizer_step`, which unscales, clips and clears
the gradients. The bound method itself is therefore replaced on this one trainer, and given back afterwards. While it
runs, the norm that it clips by is overheard from torch's function, which is called as ever.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch


class OptimizerHook:
    """Calls `before` and `after` around `trainer.optimizer_step`, once however often it is attached.

    Args:
        before: Called with the trainer while the accumulated gradients are there, scaled and not yet clipped.
        norm: Called with the total norm of the gradients, a scalar tensor, where the trainer is about to clip by it.
        after: Called with the trainer after the step. None of them may raise: it would reach the training.
    """

    def __init__(
        self, before: Callable[[Any], None], norm: Callable[[torch.Tensor], None], after: Callable[[Any], None]
    ) -> None:
        self._before, self._norm, self._after = before, norm, after
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
        with _overhearing(self._norm):
            original()
        self._after(trainer)


class _Overhearing:
    """Lets listeners see the total norms that their threads clip by; a torch without that function tells nothing."""

    def __init__(self) -> None:
        self._listeners: dict[int, Callable[[torch.Tensor], None]] = {}
        self._lock = threading.Lock()
        self._original: Callable[..., torch.Tensor] | None = None

    @contextlib.contextmanager
    def __call__(self, listen: Callable[[torch.Tensor], None]) -> Iterator[None]:
        """Let `listen` see those of this thread; torch's function is replaced while there is any listener."""
        module, name, thread = torch.nn.utils.clip_grad, "_get_total_norm", threading.get_ident()
        with self._lock:
            if self._original is None and hasattr(module, name):
                self._original = getattr(module, name)
                setattr(module, name, functools.partial(self._tell, self._original))
            self._listeners[thread] = listen
        try:
            yield
        finally:
            with self._lock:
                del self._listeners[thread]
                if not self._listeners and self._original is not None:
                    setattr(module, name, self._original)
                    self._original = None

    def _tell(self, original: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        norm = original(*args, **kwargs)
        if listen := self._listeners.get(threading.get_ident()):
            listen(norm)
        return norm


_overhearing = _Overhearing()


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
