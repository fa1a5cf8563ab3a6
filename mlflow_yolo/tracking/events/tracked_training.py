"""One training with its open run: events go to `TrainingCallbacks`, datasets and files are logged around them."""

import logging
import os
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.sender import Delivery
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks
from mlflow_yolo.tracking.events.destination import Destination
from mlflow_yolo.tracking.events.model_files import TAG_REGISTERED_NAME, log_model
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.tracking.events.outcome import outcome_of
from mlflow_yolo.tracking.events.resuming import EarlierRun, open_again
from mlflow_yolo.tracking.events.tables import per_class_table
from mlflow_yolo.tracking.events.training_data import read_loaded_data
from mlflow_yolo.tracking.events.training_files import log_predictions, log_training_files
from mlflow_yolo.tracking.events.training_values import plain_params
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.system_metrics import system_metrics

_LOG = logging.getLogger(__name__)

KEEP_ACTIVE = "MLFLOW_KEEP_RUN_ACTIVE"
"""Ultralytics' variable: leave a run open when its training has finished."""

_WEIGHTS = ("best.pt", "last.pt")
_INTERRUPTED_TIMEOUT_S = 5.0
_TIMEOUT_S = 30.0
_DATA_TIMEOUT_S = 10.0


class TrackedTraining:
    """A training whose run is open; made by `TrackedTraining.open`.

    Attributes:
        run: The open run.
    """

    def __init__(
        self, trainer: Any, run: TrackedRun, *, options: Options, callbacks: TrainingCallbacks, is_adopted: bool
    ) -> None:
        self.run = run
        self._trainer = trainer
        self._options = options
        self._callbacks = callbacks
        self._is_adopted = is_adopted
        self._data_thread: threading.Thread | None = None
        self._sampling = ExitStack()

    @classmethod
    def open(
        cls,
        trainer: Any,
        *,
        options: Options,
        destination: Destination,
        earlier: EarlierRun | None,
        defaults: Mapping[str, Any],
        ambient: BaseException | None = None,
    ) -> "TrackedTraining":
        """Return the training with its run opened.

        Args:
            trainer: Ultralytics' trainer.
            options: How to track.
            destination: Where the run goes, unless `earlier` is continued.
            earlier: The run of the training that is resumed.
            defaults: Ultralytics' default arguments.
            ambient: The exception that was being handled before the training began.

        Raises:
            WorkError: Another process is writing the run's journal.
        """
        adopted = destination.run_id is not None and (earlier is None or destination.run_id == earlier.file.run_id)
        name = destination.run_name or (None if adopted else str(trainer.args.name))
        if earlier:
            run = open_again(earlier, adopt=adopted, name=name, tags=_tags(options))
        else:
            run = open_run(Path(trainer.save_dir), **destination.place, name=name, tags=_tags(options))
        callbacks = TrainingCallbacks(
            run,
            statistics=options.statistics,
            every_n_steps=options.every_n_steps,
            defaults=defaults,
            earlier=earlier.attempts if earlier else None,
            log_images=options.log_images,
            maps=options.maps,
            ambient=ambient,
        )
        training = cls(trainer, run, options=options, callbacks=callbacks, is_adopted=adopted)
        training._log_params(earlier.attempts.params if earlier else {})
        if not adopted or os.environ.get("MLFLOW_RUN_ID") == destination.run_id:
            # Else the run is active in MLflow, which samples into it by itself.
            training._sampling.enter_context(system_metrics(run))
        return training

    def handle(self, event: str, subject: Any) -> None:
        """Pass an event on to the callbacks, and log what goes with it."""
        getattr(self._callbacks, event)(subject)
        if event == "on_train_start":
            self._trainer = subject
            save_dir = Path(subject.save_dir)
            self._try("args.yaml", lambda: log_training_files(self.run, save_dir, weights=(), images=False))
            if self._options.log_datasets:
                self._data_thread = threading.Thread(target=self._log_data, name="mlflow-yolo-data", daemon=True)
                self._data_thread.start()
        elif event == "on_fit_epoch_end":
            self._publish()
        elif event == "on_train_end":
            self._log_results()

    def close(self, error: BaseException | None) -> None:
        """Give the trainer back, log what there is, and end the run as FINISHED, FAILED or KILLED."""
        outcome = outcome_of(error)
        self._callbacks.teardown(self._trainer)
        if self._data_thread is not None:
            self._data_thread.join(_DATA_TIMEOUT_S)
        if error is not None:
            self._try("files", self._log_files)
            if outcome.status == "FAILED":
                self.run.log_text("".join(traceback.format_exception(error)), "traceback.txt")
        self._sampling.close()
        is_late = outcome.status == "KILLED"
        delivery = self.run.close(
            outcome.status,
            state=outcome.state,
            timeout_s=_INTERRUPTED_TIMEOUT_S if is_late else _TIMEOUT_S,
            keep_active=error is None and keep_active(),
            close_adopted=not self._is_adopted,
        )
        self._publish()
        self._say(delivery)

    def _log_params(self, known: Mapping[str, str]) -> None:
        """Log what trainings are compared by. In somebody else's run under `args/`: plain names are theirs."""
        prefix = "args/" if self._is_adopted or "args/seed" in known else ""
        params = {f"{prefix}{name}": value for name, value in plain_params(vars(self._trainer.args)).items()}
        self.run.log_params({name: value for name, value in params.items() if name not in known})

    def _log_data(self) -> None:
        trainer = self._trainer

        def log() -> None:
            splits = {"train": trainer.train_loader.dataset, str(trainer.args.split): trainer.test_loader.dataset}
            data = read_loaded_data(str(trainer.args.data), names=trainer.data["names"], splits=splits)
            self.run.log_dataset(data.name, data.digest, source=data.source, profile=data.profile, context="training")

        self._try("dataset", log)

    def _log_results(self) -> None:
        """Log what a finished training has left behind."""
        save_dir = Path(self._trainer.save_dir)
        if self._options.log_images:
            self._try("predictions", lambda: log_predictions(self.run, save_dir, step=int(self._trainer.epoch) + 1))
        self._try("files", self._log_files)
        if self._options.log_models:
            self._try("model", self._log_model)
        if final := self._callbacks.final:
            table = per_class_table({str(self._trainer.args.split): final.per_class})
            if table:
                self._try("per_class.csv", lambda: self.run.log_text(table, "per_class.csv"))

    def _log_files(self) -> None:
        weights = _WEIGHTS if self._options.log_models else ()
        save_dir = Path(self._trainer.save_dir)
        log_training_files(self.run, save_dir, weights=weights, images=self._options.log_images)

    def _log_model(self) -> None:
        trainer = self._trainer
        best = trainer.best if trainer.best.is_file() else trainer.last
        if best.is_file():
            args = trainer.args
            log_model(self.run, best, task=str(args.task), names=trainer.data["names"], imgsz=args.imgsz)

    def _try(self, what: str, log: Callable[[], None]) -> None:
        """Log one thing; what fails is said, tagged, and takes nothing else with it."""
        try:
            log()
        except Exception as error:
            self._callbacks.report_failure(what, error, keep_statistics=True)

    def _publish(self) -> None:
        self._trainer.mlflow_run_id = self.run.run_id

    def _say(self, delivery: Delivery) -> None:
        if delivery.reason:
            waiting = f"{delivery.n_pending} records wait in {self.run.directory}: " if delivery.n_pending else ""
            remedy = "; send them with: mlflow-yolo replay" if delivery.n_pending else ""
            _LOG.warning("mlflow_yolo: %s%s%s", waiting, delivery.reason, remedy)


def _tags(options: Options) -> dict[str, str]:
    from mlflow_yolo import __version__

    name = options.registered_model_name
    return {
        keys.TAG_VERSION: __version__,
        **({TAG_REGISTERED_NAME: name} if name else {}),
        **options.extra_tags,
    }


def keep_active() -> bool:
    """Return whether the environment asks for the run of a finished training to be left open."""
    return os.environ.get(KEEP_ACTIVE, "").lower() in ("1", "true", "yes", "on", "y", "t")
