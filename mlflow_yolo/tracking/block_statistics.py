"""Block statistics of one training: when they are collected, where they go.

`statistics` measures; this module wraps `trainer.optimizer_step`, opens the activation probe during ordinary
validations, and hands the results to the run. Drawing and file writing happen in a thread of their own.
"""

import contextlib
import logging
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.blocks import COPIES, Block, block_of
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics
from mlflow_yolo.statistics.storage import StatisticsWriter
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.statistics_figures import draw_statistics

_LOG = logging.getLogger(__name__)

BLOCK_METRICS = {
    "gradient_l2": ("gradients", "l2"),
    "update_ratio": ("weights", "update_ratio"),
    "off_fraction": ("activations", "off_fraction"),
}
"""What is logged of every block as a metric, in this order while `MAX_BLOCK_METRICS` allows; the rest is in files."""

MAX_BLOCK_METRICS = 60
_MODEL_METRICS = ("gradient_norm", "clip_coefficient")
_ACTIVATION_BATCHES = 4
_DRAWINGS = 10


class BlockStatistics:
    """Collects and logs the block statistics of a run, over one or several stages of training."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = run
        self._writer = StatisticsWriter(run.directory / "statistics")
        self._collector: StepCollector | None = None
        self._probe: contextlib.ExitStack | None = None
        self._activations: ActivationProbe | None = None
        self._epochs: list[EpochStatistics] = []
        self._names: dict[int, str] = {}
        self._without_gradient: set[str] | None = None
        self._trainer: Any = None
        self._original: Callable[[], None] | None = None
        self._was_wrapped = False
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []
        self._drawn = 0
        self._failed: set[str] = set()

    def start(self, trainer: Any) -> None:
        """Wrap the trainer's optimizer step."""
        network = getattr(trainer.model, "module", trainer.model)
        layers = list(network.model)
        self._names = {i: Block(i, type(layer).__name__, "").name for i, layer in enumerate(layers)}
        self._collector = StepCollector(
            list(network.named_parameters()),
            block_of=block_of,
            names=self._names,
            steps_per_epoch=max(1, math.ceil(len(trainer.train_loader) / trainer.accumulate)),
        )
        self._trainer, self._original = trainer, trainer.optimizer_step
        self._was_wrapped = "optimizer_step" in vars(trainer)
        self._pool = self._pool or ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlflow-yolo-draw")
        trainer.optimizer_step = self._step

    def _step(self) -> None:
        """Take the optimizer step with its gradients and weights read before and after."""
        assert self._original is not None
        collector = self._collector
        try:
            if collector:
                collector.before_step(_loss_scale(self._trainer))
        except Exception as error:
            self._collector, collector = None, None
            self._fail("gradient statistics", error)
        self._original()
        try:
            if collector:
                collector.after_step()
        except Exception as error:
            self._collector = None
            self._fail("weight statistics", error)

    def _fail(self, what: str, error: Exception) -> None:
        """Say once what failed and tag the run."""
        if what in self._failed:
            return
        self._failed.add(what)
        _LOG.warning("mlflow_yolo: %s failed, training goes on: %s", what, error)
        self._run.set_tags({keys.TAG_STATISTICS: "failed", f"{keys.TAG_STATISTICS}.cause": f"{what}: {error}"[:500]})

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch; one that is repeated (after NaN or too little memory) replaces the first attempt."""
        if self._collector:
            self._collector.start_epoch(epoch)

    def watch_activations(self) -> None:
        """Open the probe on the model that is being validated, at the first batch of a validation."""
        if self._activations is None and self._collector and self._trainer is not None:
            model = self._trainer.ema.ema if self._trainer.ema else self._trainer.model
            layers = [(i, layer) for i, layer in enumerate(model.model) if type(layer).__name__ not in COPIES]
            self._activations = ActivationProbe(layers, max_batches=_ACTIVATION_BATCHES)
            self._probe = contextlib.ExitStack()
            self._probe.enter_context(self._activations)

    def end_activation_batch(self) -> None:
        """Close the probe once it has seen enough."""
        if self._activations and self._activations.n_batches >= _ACTIVATION_BATCHES:
            self._close_probe()

    def end_validation(self) -> None:
        """Close the probe: its hooks must not be on the model when Ultralytics saves it."""
        self._close_probe()

    def end_epoch(self, *, epoch: int, n_epochs: int | None) -> None:
        """Log the epoch: few metrics, everything into the files, now and then the figures."""
        self._close_probe()
        if not self._collector:
            return
        found = self._with_activations(self._collector.end_epoch())
        self._epochs = [*(known for known in self._epochs if known.epoch != epoch), found]
        missing = set(found.without_gradient)
        self._without_gradient = missing if self._without_gradient is None else self._without_gradient & missing
        self._run.log_metrics(self._metrics(found), step=epoch)
        every = max(_DRAWINGS, (n_epochs or 0) // _DRAWINGS)
        self._later(lambda: self._write(found, log=epoch & (epoch - 1) == 0, draw=epoch % every == 0))

    def stop(self, *, is_final: bool) -> None:
        """Give the trainer its own optimizer step back; after the last stage, log the files and figures."""
        self._release()
        if is_final:
            if self._epochs:
                self._later(self._finish)
            if self._pool:
                self._pool.shutdown(wait=True)
            for job in self._jobs:
                job.result()
            self._warn_without_gradient()

    def abandon(self) -> None:
        """Give everything back and collect nothing more."""
        self._release()
        self._collector = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without trainer, hooks and thread: a multi-GPU training pickles its callbacks."""
        live = dict.fromkeys(("_collector", "_probe", "_activations", "_trainer", "_original", "_pool"))
        return {**self.__dict__, **live, "_jobs": []}

    def _release(self) -> None:
        self._close_probe()
        self._activations = None
        if self._trainer is not None and self._original is not None:
            if self._was_wrapped:
                self._trainer.optimizer_step = self._original
            else:
                vars(self._trainer).pop("optimizer_step", None)
        self._trainer = self._original = None

    def _close_probe(self) -> None:
        if self._probe:
            self._probe.close()
            self._probe = None

    def _with_activations(self, found: EpochStatistics) -> EpochStatistics:
        """Return the epoch with what the probe has seen; a probe that failed takes nothing else with it."""
        probe, self._activations = self._activations, None
        try:
            return found.with_block_values("activations", probe.result()) if probe else found
        except WorkError as error:
            self._fail("activation statistics", error)
            return found

    def _metrics(self, found: EpochStatistics) -> dict[str, float]:
        """Return the metrics of an epoch: means over its sampled steps."""
        summary = found.summary()
        found_globally = {name: summary.get(("global", name, NO_BLOCK)) for name in _MODEL_METRICS}
        values = {keys.model_metric(name): v for name, v in found_globally.items() if v is not None}
        values[keys.model_metric("nonfinite_steps")] = float(len(found.nonfinite_steps))
        for name, (kind, statistic) in BLOCK_METRICS.items():
            of_blocks = {
                keys.block_metric(name, self._names[block]): value
                for (k, s, block), value in summary.items()
                if (k, s) == (kind, statistic) and block != NO_BLOCK
            }
            if len(values) + len(of_blocks) <= MAX_BLOCK_METRICS:
                values |= of_blocks
        return values

    def _later(self, work: Callable[[], None]) -> None:
        if self._pool:
            self._jobs = [job for job in self._jobs if not job.done() or job.exception()]
            self._jobs.append(self._pool.submit(work))

    def _write(self, found: EpochStatistics, *, log: bool, draw: bool) -> None:
        self._writer.add(found)
        paths = self._writer.write()
        if log:
            for path in paths:
                self._run.log_file(path, "statistics")
        if draw:
            self._draw()

    def _finish(self) -> None:
        for path in self._writer.write():
            self._run.log_file(path, "statistics")
        self._draw()

    def _draw(self) -> None:
        """Add the heat map and the weight histograms of all epochs so far to the image grid."""
        epochs = sorted(self._epochs, key=lambda found: found.epoch)
        if not epochs or epochs[-1].epoch == self._drawn:
            return
        self._drawn = epochs[-1].epoch
        for name, picture in draw_statistics(epochs, self._names).items():
            self._run.log_image(f"stats/{name}", picture, step=self._drawn)

    def _warn_without_gradient(self) -> None:
        """Say which trainable parameters never had a gradient: they are outside the loss, or the graph is cut."""
        if self._without_gradient:
            names = sorted(self._without_gradient)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            _LOG.warning("mlflow_yolo: trainable but without any gradient: %s", shown)
            self._run.set_tags({f"{keys.TAG_STATISTICS}.without_gradient": shown})


def _loss_scale(trainer: Any) -> Any:
    """Return what the gradients are still multiplied with: the scaler's own tensor, which costs no wait; 1 without."""
    scaler = trainer.scaler
    if not scaler.is_enabled():
        return 1.0
    scale = getattr(scaler, "_scale", None)
    return scaler.get_scale() if scale is None else scale
