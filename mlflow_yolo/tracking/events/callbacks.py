"""Ultralytics' training events, turned into statistics and values of one run.

The callbacks see the trainer object and nothing else of Ultralytics. Whatever fails in them is said once, tagged on the
run and left alone: a training is never stopped, delayed or changed by being watched.
"""

import functools
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

from mlflow_yolo import keys
from mlflow_yolo.tracking.blocks.block_statistics import BlockStatistics
from mlflow_yolo.tracking.events.earlier import EPOCH_SECONDS, EarlierAttempts, missing_epochs
from mlflow_yolo.tracking.events.epoch_history import EpochHistory
from mlflow_yolo.tracking.events.final_values import FinalValues, per_class_metrics, read_final_values
from mlflow_yolo.tracking.events.hooks import take_off_built_in
from mlflow_yolo.tracking.events.outcome import propagating
from mlflow_yolo.tracking.events.ranks import is_first_rank
from mlflow_yolo.tracking.events.training_values import (
    changed_arguments,
    count_batch_norm,
    count_parameters,
    headline,
)
from mlflow_yolo.tracking.maps.schedule import OFF
from mlflow_yolo.tracking.maps.training_maps import TrainingMaps
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.run_reference import RunReference, reference_to

_LOG = logging.getLogger(__name__)
EVENTS = (
    "on_pretrain_routine_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_val_batch_start",
    "on_val_batch_end",
    "on_val_end",
    "on_fit_epoch_end",
    "on_train_end",
    "teardown",
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
    """Return the callback so that it runs in one process only, and an error in it does not end the training."""

    @functools.wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        callbacks = args[0]
        assert isinstance(callbacks, TrainingCallbacks)
        if callbacks.is_idle or not is_first_rank():
            return
        try:
            method(*args, **kwargs)
        except Exception as error:
            callbacks.report_failure(method.__name__, error)

    return guarded


class TrainingCallbacks:
    """Follows one Ultralytics training and logs it into one run.

    Steps are epochs, counted from 1 as in Ultralytics' `results.csv`. The values of `best.pt` are logged once, as
    `final/…`, never as a further step of the per-epoch metrics.

    Args:
        run: The open run; it is neither opened nor closed here.
        statistics: Block statistics to collect: `off`, `default` or `all`.
        every_n_steps: Optimizer steps between two samples, None for about 20 samples an epoch.
        epoch_offset: Epochs trained before this training (an earlier stage of the same run).
        n_epochs: Epochs of all stages.
        is_final: Whether the values of `best.pt` are those of the run.
        report: Called after every epoch with `epoch`, `epochs` and the headline metric.
        defaults: Ultralytics' default arguments; those that differ become params.
        continues: The callbacks of the earlier stage, whose history and statistics are continued.
        earlier: What was logged before this training was interrupted, where it is being resumed.
        log_images: Whether pictures are logged: of the statistics, and maps of where the model looks.
        maps: Epochs between two sets of maps, None for what 3 % of the time allow, 0 for none.
        ambient: The exception that was being handled before the training began; it is not the training's.

    Attributes:
        final: The values of `best.pt` on val, None before the end and where they could not be read.
        is_idle: Whether nothing can be logged here: a copy in another process whose run cannot be opened.
    """

    def __init__(
        self,
        run: TrackedRun,
        *,
        statistics: str = "default",
        every_n_steps: int | None = None,
        epoch_offset: int = 0,
        n_epochs: int | None = None,
        is_final: bool = True,
        report: Callable[[dict[str, Any]], None] | None = None,
        defaults: Mapping[str, Any] | None = None,
        continues: "TrainingCallbacks | None" = None,
        earlier: EarlierAttempts | None = None,
        log_images: bool = True,
        maps: int | None = None,
        ambient: BaseException | None = None,
    ) -> None:
        self.run = run
        self.is_idle = False
        self._earlier = earlier or EarlierAttempts()
        self._defaults = defaults or {}
        self.save_dir = Path()
        self.final: FinalValues | None = None
        self._offset = epoch_offset
        self._n_epochs = n_epochs
        self._is_final = is_final
        self._report = report
        self._history: EpochHistory = continues._history if continues else EpochHistory()
        self._stage: int = continues._stage + 1 if continues else 1
        self._arguments: dict[str, str] = continues._arguments if continues else self._earlier.arguments()
        self._blocks: BlockStatistics | None = None
        self._block_settings: dict[str, Any] = {
            "level": statistics,
            "every_n_steps": every_n_steps,
            "resume": self._earlier.n_attempts > 0,
            "log_images": log_images,
        }
        if statistics != "off":
            self._blocks = continues._blocks if continues else self._new_blocks()
        self._maps_every = maps if log_images else OFF
        self._maps: TrainingMaps | None = continues._maps if continues else self._new_maps()
        self._failed: set[str] = set()
        self._in_epoch = self._has_validated = False
        self._epoch_start = self._batch_start = 0.0
        self._ambient = ambient
        self._is_copy = False

    # ------------------------------------------------------------------ events

    @_guarded
    def on_pretrain_routine_start(self, trainer: Any) -> None:
        """Take Ultralytics' own MLflow callback off this trainer: it would open a second run in another experiment."""
        take_off_built_in(trainer.callbacks)
        self._ambient = sys.exc_info()[1]

    @_guarded
    def on_train_start(self, trainer: Any) -> None:
        """Log what is known before the first step, maps included, and start to watch the optimizer."""
        self.save_dir = Path(trainer.save_dir)
        if isinstance(self.run, RunReference):
            self._open_own_run(self.run)
        if self._earlier.n_attempts:
            self._continue_history(trainer)
        self._log_arguments(changed_arguments(vars(trainer.args), self._defaults))
        if not self._history.counts:  # those of the first stage: what a configuration freezes
            self._history.counts = count_parameters(trainer.model)
        if self._offset + int(trainer.start_epoch) == 0:  # neither resumed nor a later stage
            self._log_maps(lambda maps: maps.start(trainer))
        if self._blocks:
            self._blocks.start(trainer)

    @_guarded
    def on_train_epoch_start(self, trainer: Any) -> None:
        """Note when the epoch starts; one that is repeated after NaN or too little memory starts anew."""
        self._epoch_start = time.perf_counter()
        self._in_epoch, self._has_validated = True, False
        if self._blocks:
            self._blocks.start_epoch(self._epoch(trainer))

    @_guarded
    def on_train_batch_start(self, trainer: Any) -> None:
        """Note when the step starts; count BatchNorm modes once, while training."""
        if "bn_total" not in self._history.counts:
            self._history.counts |= count_batch_norm(trainer.model)
        self._batch_start = time.perf_counter()

    @_guarded
    def on_train_batch_end(self, trainer: Any) -> None:
        """Note how long the step took."""
        self._history.step_ms.append((time.perf_counter() - self._batch_start) * 1000.0)

    @_guarded
    def on_train_epoch_end(self, trainer: Any) -> None:
        """Take what watches training batches off the model: it is about to be validated, copied and saved."""
        if self._blocks:
            self._blocks.end_batches()

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
        self._has_validated = True
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
        # Without a validation in this epoch the trainer still holds the values of an earlier one, or zeros.
        measured = trainer.metrics if self._has_validated or _always_validates(trainer) else {}
        name, value = headline(keys.metrics(measured))
        # The headline first: MLflow's comparison of runs opens with the metric that was logged first.
        first = {name: value} if name else {}
        values = {**first, **trainer.label_loss_items(trainer.tloss), **measured, **trainer.lr}
        seconds = time.perf_counter() - self._epoch_start
        self._history.epochs.append({**keys.metrics(values), "seconds": seconds})
        self.run.log_metrics({**values, EPOCH_SECONDS: seconds}, step=epoch)
        if self._blocks:
            self._blocks.end_epoch(epoch=epoch, n_epochs=self._n_epochs)
        self._log_maps(
            lambda maps: maps.end_epoch(
                trainer,
                epoch=epoch,
                n_epochs=self._n_epochs or int(trainer.epochs),
                seconds=seconds,
                is_last=self._is_final and bool(trainer.stop),
            )
        )
        if self._report:
            self._report({"epoch": epoch, "epochs": self._n_epochs or trainer.epochs, "metric": name, "value": value})

    @_guarded
    def on_train_end(self, trainer: Any) -> None:
        """Log the values of `best.pt` on val."""
        if self._is_final:
            if self._blocks:
                self._blocks.end_training()
            self.final = read_final_values(trainer.validator.metrics)
            self.run.log_metrics({f"final/{name}": value for name, value in self.final.values.items()})
            self.run.log_metrics(per_class_metrics("final", self.final.per_class))
            costs = self.summary()
            self.run.log_metrics({name: costs[name] for name in _COSTS if name in costs})

    @_guarded
    def teardown(self, trainer: Any) -> None:
        """Give the trainer back as it was; runs after success, failure and interruption alike."""
        if self._blocks:
            self._blocks.stop(is_final=self._is_final or propagating(self._ambient) is not None)
        if self._maps:
            self._maps.stop()
        if self._is_copy and isinstance(self.run, TrackedRun):
            self.run.close(keep_active=True)

    # ------------------------------------------------------------------ results

    def summary(self) -> dict[str, float]:
        """Return what the training cost, see `EpochHistory.summary`."""
        return self._history.summary()

    def curves(self) -> dict[str, list[float]]:
        """Return every per-epoch value by name, see `EpochHistory.curves`."""
        return self._history.curves()

    def headline_curve(self) -> list[tuple[float, float]]:
        """Return per epoch the headline metric and the seconds of training until its end."""
        return self._history.headline_curve()

    def report_failure(self, where: str, error: Exception, *, keep_statistics: bool = False) -> None:
        """Say once what failed and tag the run; values go on, block statistics only with `keep_statistics`."""
        if where in self._failed:
            return
        self._failed.add(where)
        _LOG.warning("mlflow_yolo: %s failed, training goes on: %s: %s", where, type(error).__name__, error)
        if isinstance(self.run, RunReference):  # a copy that could not open its run
            self.is_idle = True
            return
        self.run.set_tags({keys.TAG_STATISTICS: "failed", f"{keys.TAG_STATISTICS}.cause": f"{where}: {error}"[:500]})
        if self._blocks and not keep_statistics:
            self._blocks.abandon()
            self._blocks = None

    def _log_arguments(self, changed: Mapping[str, str]) -> None:
        """Log arguments as params; what a later stage has otherwise goes to `args/stage2/…`: a param cannot change."""
        params = {}
        for name, value in changed.items():
            same = self._arguments.setdefault(name, value) == value
            part = f"attempt{self._earlier.n_attempts + 1}" if self._earlier.n_attempts else f"stage{self._stage}"
            params[f"args/{name}" if same else f"args/{part}/{name}"] = value
        self.run.log_params(params)

    def _open_own_run(self, reference: RunReference) -> None:
        """Open the run in this process: a copy of the callbacks arrives in the process that trains without one."""
        self.run = reference.open(self.save_dir)
        self._is_copy = True
        if self._block_settings["level"] != "off":
            self._blocks = self._new_blocks()
        self._maps = self._new_maps()

    def _new_blocks(self) -> BlockStatistics:
        return BlockStatistics(self.run, **self._block_settings)

    def _new_maps(self) -> TrainingMaps | None:
        if self._maps_every == OFF:
            return None
        return TrainingMaps(self.run, every_n_epochs=self._maps_every, report=self._report_maps)

    def _log_maps(self, make: Callable[[TrainingMaps], bool]) -> None:
        """Make maps if they are wanted; where that fails, or cannot be, none are made any more."""
        if not self._maps:
            return
        try:
            goes_on = make(self._maps)
        except Exception as error:
            self._report_maps("maps", error)
            goes_on = False
        if not goes_on:
            self._maps.stop()
            self._maps = None

    def _report_maps(self, what: str, error: Exception) -> None:
        self.report_failure(what, error, keep_statistics=True)

    def _continue_history(self, trainer: Any) -> None:
        """Take over the epochs that the resumed training builds on; log those that a kill kept from the journal."""
        done = int(trainer.start_epoch)
        for epoch, values in missing_epochs(Path(trainer.csv), self._earlier, up_to=done).items():
            self.run.log_metrics(values, step=epoch)
        self._history.epochs = self._earlier.up_to(done)

    def _epoch(self, trainer: Any) -> int:
        return self._offset + int(trainer.epoch) + 1

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without live parts: Ultralytics sends callbacks to the processes of a multi-GPU training."""
        live = dict.fromkeys(("_report", "_ambient", "_blocks", "_maps"))
        return {**self.__dict__, "run": reference_to(self.run), **live}


def _always_validates(trainer: Any) -> bool:
    """Return whether every epoch ends with a validation, which is Ultralytics' default."""
    return bool(getattr(getattr(trainer, "args", None), "val", True))


def attach(network: Any, callbacks: TrainingCallbacks) -> None:
    """Register callbacks on an Ultralytics model, in place of any attached before.

    Raises:
        AttributeError: This Ultralytics lacks one of the events.
    """
    for event in EVENTS:
        if event not in network.callbacks:
            raise AttributeError(f"Ultralytics has no event {event}")
        kept = [f for f in network.callbacks[event] if not isinstance(getattr(f, "__self__", None), TrainingCallbacks)]
        network.callbacks[event] = [*kept, getattr(callbacks, event)]
