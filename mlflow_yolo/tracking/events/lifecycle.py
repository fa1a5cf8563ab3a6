"""The life of a tracked training's run: opened when the training is set up, fed with its events, closed with its end.

The object that is registered with Ultralytics holds plain configuration only; what is alive is made in the process that
trains. So the same object serves a training in this process, several in a row, and one on several GPUs: Ultralytics
then pickles it into new processes, and rank 0 opens the run there.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.delivery.replay import close_interrupted
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.callbacks import EVENTS
from mlflow_yolo.tracking.events.destination import Destination, release, resolve_destination
from mlflow_yolo.tracking.events.hooks import take_off_built_in
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.tracking.events.outcome import outcome_of, propagating
from mlflow_yolo.tracking.events.ranks import is_first_rank
from mlflow_yolo.tracking.events.resuming import find_earlier_run
from mlflow_yolo.tracking.events.silence import silence
from mlflow_yolo.tracking.events.tracked_training import TrackedTraining
from mlflow_yolo.tracking.stores.addresses import redact

_LOG = logging.getLogger(__name__)

LIFECYCLE_EVENTS = ("on_pretrain_routine_end", *EVENTS)
"""What a lifecycle listens to."""


class TrainingLifecycle:
    """Tracks the trainings of one Ultralytics model; made by `track` and `autolog`.

    Args:
        options: How to track.
        defaults: Ultralytics' default arguments; those that differ become params.

    Attributes:
        options: How to track.
        is_explicit: Whether the user asked for this model by name (`track`), so that the hooks stay on it.
    """

    def __init__(self, options: Options, *, defaults: Mapping[str, Any], is_explicit: bool = False) -> None:
        self.options = options
        self.is_explicit = is_explicit
        self._defaults = dict(defaults)
        self._destination: Destination | None = None
        self._run_id: str | None = None
        self._save_dir: Path | None = None
        self._uid: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._training: TrackedTraining | None = None
        self._trainer: Any = None
        self._ambient: BaseException | None = None
        self._failed: set[str] = set()
        self._quiet = contextlib.ExitStack()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the latest training's run; None before the first, and while no server has answered."""
        if self._training is not None:
            return self._training.run.run_id
        if self._run_id is None and self._save_dir is not None:
            file = read_run_file(self._save_dir)  # written by another process, or after a late answer
            self._run_id = file.run_id if file and self._uid in (None, file.uid) else None
        return self._run_id

    # ------------------------------------------------------------------ around a training

    @contextlib.contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """Track what `model` trains inside the block: what no event says is done here.

        The destination is resolved in the caller's thread, where MLflow's active run is. A training that fails before
        it is set up (a missing dataset) fires no event of its end. One on several GPUs happens in other processes.
        """
        before = getattr(model, "trainer", None)
        with self._never_failing("start"):
            self._reset()
            self._run_id, self._save_dir, self._uid = None, None, None
            self._destination = resolve_destination(self.options, exclusively=True)
        try:
            yield
        finally:
            with self._never_failing("end"):
                error = propagating(self._ambient)
                self._close(error)
                trainer = getattr(model, "trainer", None)
                self._take_over(trainer if trainer is not before else None, error)

    def _take_over(self, trainer: Any, error: BaseException | None) -> None:
        """Publish the run's id in the process of the caller, and give back an active run that was not used."""
        if trainer is not None:
            if getattr(trainer, "ddp", False):
                self._save_dir = Path(trainer.save_dir)
                if error is not None:  # the first process is killed where another one failed, and could not say so
                    outcome = outcome_of(error)
                    close_interrupted(self._save_dir, status=outcome.status, state=outcome.state)
            trainer.mlflow_run_id = self.run_id
        unused, self._destination = self._destination, None
        if unused is not None and unused.run_id and unused.run_id != self.run_id:
            release(unused.run_id)

    # ------------------------------------------------------------------ events

    def handle(self, event: str, subject: Any) -> None:
        """Take note of an event; called by Ultralytics in every process of the training, and never raises."""
        if not is_first_rank():
            return
        with self._never_failing(event):
            if event == "on_pretrain_routine_start":
                self._begin(subject)
            elif event == "on_pretrain_routine_end":
                self._open(subject)
            elif event == "teardown":
                self._close(propagating(self._ambient))
            elif self._training is not None:
                self._training.handle(event, subject)

    def _begin(self, trainer: Any) -> None:
        """Note that a training begins. Its run is opened later: a mistyped argument must not leave a run behind."""
        self._close(propagating(self._ambient))  # an earlier one that never reached its end
        self._reset()
        self._ambient = sys.exc_info()[1]
        self._trainer = trainer
        self._quiet.enter_context(silence(self.options.silent))
        trainer.mlflow_run_id = None
        take_off_built_in(trainer.callbacks)

    def _open(self, trainer: Any) -> TrackedTraining:
        """Open the run: the one a resumed training had, the active one, or a new one."""
        earlier = find_earlier_run(trainer)
        destination, self._destination = self._destination, None
        if destination is None:  # a further training of the same call, or a trainer that nobody announced
            destination = resolve_destination(self.options, exclusively=True)
        if earlier and destination.run_id and destination.run_id != earlier.file.run_id:
            release(destination.run_id)
        self._say_where(destination, is_resumed=earlier is not None)
        try:
            training = TrackedTraining.open(
                trainer,
                options=self.options,
                destination=destination,
                earlier=earlier,
                defaults=self._defaults,
                ambient=self._ambient,
            )
        except Exception:
            if destination.run_id:
                release(destination.run_id)
            raise
        self._training, self._save_dir, self._uid = training, training.run.directory, training.run.uid
        return training

    def _close(self, error: BaseException | None) -> None:
        """Close the run of the training that ended, one that failed before it could be opened included."""
        trainer, training = self._trainer, self._training
        if trainer is None:
            return
        if training is None:
            if error is None or "on_pretrain_routine_end" in self._failed:
                self._quiet.close()
                return
            training = self._open(trainer)
        try:
            training.close(error)
        finally:
            self._run_id = training.run.run_id
            trainer.mlflow_run_id = self._run_id
            self._training, self._trainer = None, None
            self._quiet.close()

    def _say_where(self, destination: Destination, *, is_resumed: bool) -> None:
        if destination.parent_run_id and not is_resumed:
            _LOG.warning(
                "mlflow_yolo: run %s has a training already; this one gets a run of its own, nested under it",
                destination.parent_run_id,
            )

    @contextlib.contextmanager
    def _never_failing(self, where: str) -> Iterator[None]:
        """Turn an error inside the block into one warning: a training is never stopped by being watched."""
        try:
            yield
        except Exception as error:
            if where not in self._failed:
                reason = redact(" ".join(str(error).split()))[:300]
                _LOG.warning("mlflow_yolo: tracking failed in %s: %s: %s", where, type(error).__name__, reason)
            self._failed.add(where)

    def __getstate__(self) -> dict[str, Any]:
        """Return plain configuration: Ultralytics sends its callbacks to the processes of a multi-GPU training.

        The destination is resolved here, in the process of the caller, where MLflow's active run is known.
        """
        with self._never_failing("pickling"):
            self._destination = self._destination or resolve_destination(self.options)
        destination = self._destination
        return {
            "options": self.options.without_secret(),
            "is_explicit": self.is_explicit,
            "defaults": self._defaults,
            "destination": destination.without_secret() if destination else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["options"], defaults=state["defaults"], is_explicit=state["is_explicit"])  # type: ignore[misc]
        self._destination = state["destination"]
