"""Block statistics of one training: when they are collected, and what of them becomes a metric.

`statistics` measures; this module calls it around every optimizer step, during ordinary validations and at the end of
an epoch, and hands the results on: rows and figures to `StatisticsOutput`, few metrics to the run.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.blocks import COPIES, Block, block_of
from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.batch_norm import BatchNorm, block_batch_norms
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.statistics.epoch import EpochStatistics
from mlflow_yolo.statistics.histogram import weight_histograms
from mlflow_yolo.tracking.blocks.block_metrics import step_metrics
from mlflow_yolo.tracking.blocks.optimizer_hook import OptimizerHook, images_of_step, loss_scale
from mlflow_yolo.tracking.blocks.statistics_output import StatisticsOutput
from mlflow_yolo.tracking.run import TrackedRun

_LOG = logging.getLogger(__name__)

LEVELS = ("off", "default", "all")
"""How much is collected. `default`: a sample of the optimizer steps within 1 % of their time. `all`: every statistic
at every step, activations of the training's own forward passes included."""

_ACTIVATION_BATCHES = 4
_DRAIN_INTERVAL_S = 1.0


class BlockStatistics:
    """Collects and logs the block statistics of a run, over one or several stages of training.

    Args:
        run: The open run.
        level: `default` or `all`, see `LEVELS`.
        every_n_steps: Sample every n-th optimizer step, however long that takes; None for what the level says.
        resume: Whether the training continues one whose files lie in the run's directory.
        log_images: Whether pictures are drawn and logged.
        clock: Seconds, monotonic; says when rows are due on disk.
    """

    def __init__(
        self,
        run: TrackedRun,
        *,
        level: str = "default",
        every_n_steps: int | None = None,
        resume: bool = False,
        log_images: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._complete = level == "all"
        self._every_n_steps = every_n_steps
        self._resume = resume
        self._log_images = log_images
        self._clock = clock
        self._hook = OptimizerHook(self._before_step, self._see_norm, self._after_step)
        self._output: StatisticsOutput | None = None
        self._collector: StepCollector | None = None
        self._trainer: Any = None
        self._validation = contextlib.ExitStack()
        self._training = contextlib.ExitStack()
        self._validation_probe: ActivationProbe | None = None
        self._training_probe: ActivationProbe | None = None
        self._hooks_training = False
        self._names: dict[int, str] = {}
        self._attempt = 0
        self._step = 0
        self._epoch = 0
        self._drained_at = 0.0
        self._n_aborted_nonfinite = 0
        self._without_gradient: set[str] | None = None
        self._said: set[str] = set()

    # ------------------------------------------------------------------ the training

    def start(self, trainer: Any) -> None:
        """Begin to watch a trainer that is about to take its first step."""
        network = _network(trainer)
        self._names = {i: Block(i, type(layer).__name__, "").name for i, layer in enumerate(network.model)}
        parameters = list(network.named_parameters())
        known = self._collector.initial_weights if self._collector else {}  # of the stage before
        if self._output is None:
            self._output = StatisticsOutput(
                self._run, resume=self._resume, log_images=self._log_images, report=self._fail
            )
            self._attempt = self._output.first_attempt - 1
            known = self._output.start_weights()
        self._collector = StepCollector(
            parameters,
            block_of=block_of,
            names=self._names,
            steps_per_epoch=_steps_per_epoch(trainer),
            every_n_steps=self._every_n_steps,
            complete=self._complete,
            reference={name: known[name] for name, p in parameters if name in known and known[name].shape == p.shape},
        )
        if not known:
            self._output.keep_start(self._collector.initial_weights)
        self._trainer = trainer
        self._drained_at = self._clock()
        self._hook.attach(trainer)
        self._hooks_training = self._complete and not getattr(trainer.args, "compile", False)  # hooks break its graph

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch; one that is repeated (after NaN or too little memory) replaces the first attempt."""
        if not self._collector:
            return
        if self._step and epoch == self._epoch:
            aborted = self._collector.end_epoch()
            self._note(aborted)
            self._n_aborted_nonfinite += len(aborted.nonfinite_steps)
        self.end_validation()
        self._validation_probe = None
        self.end_batches()
        if self._hooks_training:
            probe = ActivationProbe(_layers(_network(self._trainer)), max_batches=None)
            self._training_probe = self._training.enter_context(probe)
        self._epoch, self._step, self._attempt = epoch, 0, self._attempt + 1
        self._collector.start_epoch(epoch, steps_per_epoch=_steps_per_epoch(self._trainer))

    def end_batches(self) -> None:
        """Take the hooks off the training model: Ultralytics copies it when it recovers from NaN, hooks and all."""
        self._training.close()

    def _before_step(self, trainer: Any) -> None:
        if self._collector:
            try:
                self._collector.before_step(loss_scale(trainer), images_of_step(trainer))
            except Exception as error:
                self._collector = None
                self._fail("gradient statistics", error)

    def _see_norm(self, norm: Any) -> None:
        if self._collector:
            try:
                self._collector.see_norm(norm)
            except Exception as error:
                self._collector = None
                self._fail("gradient statistics", error)

    def _after_step(self, trainer: Any) -> None:
        if self._collector:
            try:
                self._collector.after_step()
                if self._training_probe:
                    self._training_probe.end_step(self._step)
                self._step += 1
                if self._clock() - self._drained_at >= _DRAIN_INTERVAL_S:
                    self._drain()
            except Exception as error:
                self._collector = None
                self._fail("weight statistics", error)

    def _drain(self) -> None:
        """Bring the finished steps to the host and hand them over to the thread that writes them."""
        assert self._collector
        assert self._output
        part = self._collector.drain()
        if self._training_probe and (grids := self._training_probe.drain()):
            part = part or EpochStatistics(self._epoch, self._names)
            part = replace(part, grids=(*part.grids, *(replace(g, kind="training_activations") for g in grids)))
        if part:
            self._output.append(part, attempt=self._attempt)
        self._drained_at = self._clock()

    # ------------------------------------------------------------------ validations

    def watch_activations(self) -> None:
        """Open the probe on the model that is being validated, at the first batch of a validation."""
        if self._validation_probe is None and self._collector and self._trainer is not None:
            probe = ActivationProbe(_layers(_validated(self._trainer)), max_batches=_ACTIVATION_BATCHES)
            self._validation_probe = self._validation.enter_context(probe)

    def end_activation_batch(self) -> None:
        """Close the probe once it has seen enough."""
        if self._validation_probe and self._validation_probe.n_batches >= _ACTIVATION_BATCHES:
            self.end_validation()

    def end_validation(self) -> None:
        """Close the probe: its hooks must not be on the model when Ultralytics saves it."""
        self._validation.close()

    # ------------------------------------------------------------------ epochs

    def end_epoch(self, *, epoch: int, n_epochs: int | None) -> None:
        """Hand the epoch over: few metrics, everything into the files, now and then the figures."""
        self.end_validation()
        if not self._collector or not self._output:
            return
        self._drain()
        found = self._with_averaged_weights(self._collector.end_epoch())
        self._note(found)
        scaled = self._trainer.scaler.is_enabled()
        self._run.log_metrics(step_metrics(found, n_aborted=self._n_aborted_nonfinite, scaled=scaled), step=epoch)
        self.end_batches()
        probes = self._validation_probe, self._training_probe
        self._validation_probe = self._training_probe = None
        self._output.end_epoch(found, self._batch_norms(), *probes, attempt=self._attempt, n_epochs=n_epochs)
        self._n_aborted_nonfinite = self._step = 0

    def stop(self, *, is_final: bool) -> None:
        """Give the trainer its own optimizer step back; after the last stage, log the files, figures and report.

        Args:
            is_final: Whether no stage follows, be it that the training is over or that it was interrupted.
        """
        if is_final and self._output and self._step:
            self._drain()
        self._release()
        if is_final and self._output:
            self._output.finish(epoch=self._epoch)
            self._output = None
            self._warn_without_gradient()

    def end_training(self) -> None:
        """Note that the training has come to its end: it will not be resumed."""
        if self._output:
            self._output.forget_start()

    def abandon(self) -> None:
        """Give everything back and collect nothing more."""
        self._release()
        self._collector = None

    def _release(self) -> None:
        self.end_validation()
        self.end_batches()
        self._validation_probe = self._training_probe = self._trainer = None
        self._hook.detach()

    def _with_averaged_weights(self, found: EpochStatistics) -> EpochStatistics:
        """Return the epoch with the distribution of the weights that are validated and saved."""
        try:
            if not self._trainer.ema or not found.histograms:
                return found
            trains = {name for name, p in _network(self._trainer).named_parameters() if p.requires_grad}
            weights = ((block_of(name), p) for name, p in self._trainer.ema.ema.named_parameters() if name in trains)
            inside = ((block, p) for block, p in weights if block is not None)
            averaged = weight_histograms(inside, found.histograms["weights"].blocks)
            return replace(found, histograms={**found.histograms, "ema_weights": averaged})
        except Exception as error:
            self._fail("statistics of the averaged weights", error)
            return found

    def _batch_norms(self) -> dict[int, list[BatchNorm]]:
        """Return the batch norms of the model that is validated and saved, as they are now."""
        try:
            return block_batch_norms(_layers(_validated(self._trainer)))
        except Exception as error:
            self._fail("batch norm statistics", error)
            return {}

    # ------------------------------------------------------------------ what is said once

    def _note(self, found: EpochStatistics) -> None:
        """Tag the run with what is frozen and with the first NaN or infinite gradient: where backward met it."""
        missing = set(found.without_gradient)
        self._without_gradient = missing if self._without_gradient is None else self._without_gradient & missing
        if found.frozen:
            self._tag_once("frozen", ", ".join(found.frozen))
        if found.nonfinite_steps:
            step, block = found.nonfinite_steps[0]
            where = self._names.get(block, "outside the blocks")
            self._tag_once("nonfinite", f"epoch {self._epoch} step {step} block {where}")

    def _tag_once(self, name: str, value: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._run.set_tags({f"{keys.TAG_STATISTICS}.{name}": value})

    def _warn_without_gradient(self) -> None:
        """Say which trainable parameters never had a gradient: they are outside the loss, or the graph is cut."""
        if self._without_gradient:
            names = sorted(self._without_gradient)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            _LOG.warning("mlflow_yolo: trainable but without any gradient: %s", shown)
            self._run.set_tags({f"{keys.TAG_STATISTICS}.without_gradient": shown})

    def _fail(self, what: str, error: Exception) -> None:
        """Say once what failed and tag the run."""
        if what in self._said:
            return
        self._said.add(what)
        _LOG.warning("mlflow_yolo: %s failed, training goes on: %s", what, error)
        self._run.set_tags({keys.TAG_STATISTICS: "failed", f"{keys.TAG_STATISTICS}.cause": f"{what}: {error}"[:500]})


def _network(trainer: Any) -> Any:
    """Return the model that trains, out of its wrapper for several GPUs."""
    return getattr(trainer.model, "module", trainer.model)


def _validated(trainer: Any) -> Any:
    """Return the model that is validated and saved: the moving average where there is one."""
    return trainer.ema.ema if trainer.ema else _network(trainer)


def _layers(network: Any) -> list[tuple[int, Any]]:
    return [(i, layer) for i, layer in enumerate(network.model) if type(layer).__name__ not in COPIES]


def _steps_per_epoch(trainer: Any) -> int:
    return max(1, math.ceil(len(trainer.train_loader) / int(trainer.accumulate)))
