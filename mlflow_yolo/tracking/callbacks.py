"""Ultralytics' training events, turned into statistics and values of one run.

The callbacks see the trainer object and nothing else of Ultralytics. Whatever fails in them is said once, tagged on the
run and left alone: a training is never stopped, delayed or changed by being watched.
"""

import functools
import logging
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import psutil

from mlflow_yolo import keys
from mlflow_yolo.tracking.block_statistics import BlockStatistics
from mlflow_yolo.tracking.final_values import FinalValues, per_class_metrics, read_final_values
from mlflow_yolo.tracking.run import TrackedRun

_LOG = logging.getLogger(__name__)
_BUILT_IN = "ultralytics.utils.callbacks.mlflow"
_EVENTS = (
    "on_pretrain_routine_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_val_batch_start",
    "on_val_batch_end",
    "on_val_end",
    "on_fit_epoch_end",
    "on_train_end",
    "teardown",
)
_LOGGED_ELSEWHERE = frozenset(
    {"model", "data", "save_dir", "project", "name", "exist_ok", "task", "mode", "workers"}  # the place, the dataset
    | {"freeze", "seed", "lr0"}  # params of their own
)

_COSTS = (
    "train_s",
    "step_ms",
    "peak_memory_mb",
    "parameters_trainable",
    "parameters_frozen",
    "bn_total",
    "bn_eval",
    "bn_train",
)

P = ParamSpec("P")


def _guarded(method: Callable[P, None]) -> Callable[P, None]:
    """Return the callback so that an error in it ends the tracking of what it tracks, not the training."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:
            callbacks = args[0]
            assert isinstance(callbacks, TrainingCallbacks)
            callbacks.report_failure(method.__name__, error)

    return guarded


class TrainingCallbacks:
    """Follows one Ultralytics training and logs it into one run.

    Steps are epochs, counted from 1 as in Ultralytics' `results.csv`. The values of `best.pt` are logged once, as
    `final/…`, never as a further step of the per-epoch metrics.

    Args:
        run: The open run; it is neither opened nor closed here.
        statistics: `default` collects block statistics, `off` does not.
        epoch_offset: Epochs trained before this training (an earlier stage of the same run).
        n_epochs: Epochs of all stages.
        is_final: Whether the values of `best.pt` are those of the run.
        report: Called after every epoch with `epoch`, `epochs` and the headline metric.
        defaults: Ultralytics' default arguments; those that differ become params.
        continues: The callbacks of the earlier stage, whose history and statistics are continued.
    """

    def __init__(
        self,
        run: TrackedRun,
        *,
        statistics: str = "default",
        epoch_offset: int = 0,
        n_epochs: int | None = None,
        is_final: bool = True,
        report: Callable[[dict[str, Any]], None] | None = None,
        defaults: Mapping[str, Any] | None = None,
        continues: "TrainingCallbacks | None" = None,
    ) -> None:
        self.run = run
        self._defaults = defaults or {}
        self.save_dir = Path()
        self.final: FinalValues | None = None
        self._offset = epoch_offset
        self._n_epochs = n_epochs
        self._is_final = is_final
        self._report = report
        self._history: list[dict[str, float]] = continues._history if continues else []
        self._step_ms: list[float] = continues._step_ms if continues else []
        self._stage: int = continues._stage + 1 if continues else 1
        self._arguments: dict[str, str] = continues._arguments if continues else {}
        self._blocks: BlockStatistics | None = None
        if statistics != "off":
            self._blocks = continues._blocks if continues else BlockStatistics(run)
        self._counts: dict[str, int] = dict(continues._counts) if continues else {}
        self._failed: set[str] = set()
        self._in_epoch = False
        self._epoch_start = self._batch_start = 0.0

    # ------------------------------------------------------------------ events

    @_guarded
    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Take Ultralytics' own MLflow callback off this trainer: it would open a second run in another experiment."""
        for functions in trainer.callbacks.values():
            functions[:] = [function for function in functions if getattr(function, "__module__", "") != _BUILT_IN]

    @_guarded
    def on_train_start(self, trainer: Any) -> None:
        """Log what is known before the first step, and start to watch the optimizer."""
        self.save_dir = Path(trainer.save_dir)
        self._log_arguments(_changed_arguments(vars(trainer.args), self._defaults))
        if not self._counts:  # those of the first stage: what a configuration freezes
            self._counts = _count_parameters(trainer.model)
        if self._blocks:
            self._blocks.start(trainer)

    @_guarded
    def on_train_epoch_start(self, trainer: Any) -> None:
        """Note when the epoch starts; one that is repeated after NaN or too little memory starts anew."""
        self._epoch_start = time.perf_counter()
        self._in_epoch = True
        if self._blocks:
            self._blocks.start_epoch(self._epoch(trainer))

    @_guarded
    def on_train_batch_start(self, trainer: Any) -> None:
        """Note when the step starts; count BatchNorm modes once, while training."""
        if "bn_total" not in self._counts:
            self._counts |= _count_batch_norm(trainer.model)
        self._batch_start = time.perf_counter()

    @_guarded
    def on_train_batch_end(self, trainer: Any) -> None:
        """Note how long the step took."""
        self._step_ms.append((time.perf_counter() - self._batch_start) * 1000.0)

    @_guarded
    def on_val_batch_start(self, validator: Any) -> None:
        """Watch block outputs on the first batches of an ordinary validation during training."""
        if self._blocks and validator.training:
            self._blocks.watch_activations()

    @_guarded
    def on_val_batch_end(self, validator: Any) -> None:
        """Stop watching after a few batches."""
        if self._blocks and validator.training:
            self._blocks.end_activation_batch()

    @_guarded
    def on_val_end(self, validator: Any) -> None:
        """Stop watching in any case: the model is about to be copied into a checkpoint, hooks and all."""
        if self._blocks:
            self._blocks.end_validation()

    @_guarded
    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Log the epoch's losses, learning rates and metrics.

        Ultralytics calls this once more after training with the values of `best.pt`; those become `final/…` instead.
        """
        if not self._in_epoch:
            return
        self._in_epoch = False
        epoch = self._epoch(trainer)
        name, value = _headline(keys.metrics(trainer.metrics))
        # The headline first: MLflow's comparison of runs opens with the metric that was logged first.
        first = {name: value} if name else {}
        values = {**first, **trainer.label_loss_items(trainer.tloss), **trainer.metrics, **trainer.lr}
        seconds = time.perf_counter() - self._epoch_start
        self._history.append({**keys.metrics(values), "seconds": seconds})
        self.run.log_metrics({**values, "seconds_per_epoch": seconds}, step=epoch)
        if self._blocks:
            self._blocks.end_epoch(epoch=epoch, n_epochs=self._n_epochs)
        if self._report:
            self._report({"epoch": epoch, "epochs": self._n_epochs or trainer.epochs, "metric": name, "value": value})

    @_guarded
    def on_train_end(self, trainer: Any) -> None:
        """Log the values of `best.pt` on val."""
        if self._is_final:
            self.final = read_final_values(trainer.validator.metrics)
            self.run.log_metrics({f"final/{name}": value for name, value in self.final.values.items()})
            self.run.log_metrics(per_class_metrics("final", self.final.per_class))
            self.run.log_metrics({name: self.summary()[name] for name in _COSTS})

    @_guarded
    def teardown(self, trainer: Any) -> None:
        """Give the trainer back as it was; runs after success, failure and interruption alike."""
        if self._blocks:
            self._blocks.stop(is_final=self._is_final or sys.exc_info()[0] is not None)

    # ------------------------------------------------------------------ results

    def summary(self) -> dict[str, float]:
        """Return what the training cost: seconds, milliseconds a step, memory and parameters."""
        if not self._history:
            return {}
        seconds = [epoch["seconds"] for epoch in self._history]
        return {
            "train_s": sum(seconds),
            "seconds_per_epoch_mean": statistics.fmean(seconds),
            "step_ms": statistics.median(self._step_ms) if self._step_ms else 0.0,
            "peak_memory_mb": _peak_memory_mb(),
            "epochs_trained": float(len(self._history)),
            **self._counts,
        }

    def curves(self) -> dict[str, list[float]]:
        """Return every per-epoch value by name, NaN in an epoch without it; empty before the first epoch has ended."""
        names = dict.fromkeys(name for epoch in self._history for name in epoch)
        return {name: [epoch.get(name, float("nan")) for epoch in self._history] for name in names}

    def headline_curve(self) -> list[tuple[float, float]]:
        """Return per epoch the headline metric and the seconds of training until its end."""
        seconds = 0.0
        curve = []
        for epoch in self._history:
            seconds += epoch["seconds"]
            curve.append((_headline(epoch)[1], seconds))
        return curve

    def report_failure(self, where: str, error: Exception) -> None:
        """Say once what failed and tag the run; block statistics are given up, values go on."""
        if where in self._failed:
            return
        self._failed.add(where)
        _LOG.warning("mlflow_yolo: %s failed, training goes on: %s: %s", where, type(error).__name__, error)
        self.run.set_tags({keys.TAG_STATISTICS: "failed", f"{keys.TAG_STATISTICS}.cause": f"{where}: {error}"[:500]})
        if self._blocks:
            self._blocks.abandon()
            self._blocks = None

    def _log_arguments(self, changed: Mapping[str, str]) -> None:
        """Log arguments as params; what a later stage has otherwise goes to `args/stage2/…`: a param cannot change."""
        params = {}
        for name, value in changed.items():
            same = self._arguments.setdefault(name, value) == value
            params[f"args/{name}" if same else f"args/stage{self._stage}/{name}"] = value
        self.run.log_params(params)

    def _epoch(self, trainer: Any) -> int:
        return self._offset + int(trainer.epoch) + 1

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without live parts: Ultralytics sends callbacks to the processes of a multi-GPU training."""
        return {**self.__dict__, "_report": None}


def attach(network: Any, callbacks: TrainingCallbacks) -> None:
    """Register callbacks on an Ultralytics model, in place of any attached before.

    Raises:
        AttributeError: This Ultralytics lacks one of the events.
    """
    for event in _EVENTS:
        if event not in network.callbacks:
            raise AttributeError(f"Ultralytics has no event {event}")
        kept = [f for f in network.callbacks[event] if not isinstance(getattr(f, "__self__", None), TrainingCallbacks)]
        network.callbacks[event] = [*kept, getattr(callbacks, event)]


def _changed_arguments(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that differ from Ultralytics' defaults, as text."""
    return {
        name: str(value)
        for name, value in arguments.items()
        if name not in _LOGGED_ELSEWHERE and name in defaults and value != defaults[name]
    }


def _count_parameters(model: Any) -> dict[str, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {
        "parameters_trainable": sum(size for size, trainable in sizes if trainable),
        "parameters_frozen": sum(size for size, trainable in sizes if not trainable),
    }


def _count_batch_norm(model: Any) -> dict[str, int]:
    """Return how many BatchNorm layers there are, and how many keep their statistics (eval) or learn them (train)."""
    modes = [module.training for module in model.modules() if type(module).__name__.startswith("BatchNorm")]
    return {"bn_total": len(modes), "bn_eval": modes.count(False), "bn_train": modes.count(True)}


def _peak_memory_mb() -> float:
    """Return the peak memory of this process: of its GPU where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return float(getattr(psutil.Process().memory_info(), "peak_wset", 0) or _peak_resident_bytes()) / 2**20


def _peak_resident_bytes() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _headline(values: Mapping[str, float]) -> tuple[str, float]:
    """Return the name and value of the metric that decides among an epoch's values."""
    for name in ("metrics/mAP50-95B", "metrics/accuracy_top1"):
        if name in values:
            return name, values[name]
    return "", float("nan")
