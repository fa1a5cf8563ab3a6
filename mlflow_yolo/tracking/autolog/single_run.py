"""A run around one call: a validation or an export outside a training. Opened when the work starts, closed with it."""

import contextlib
import logging
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.destination import Destination, resolve_destination
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.tracking.events.outcome import outcome_of
from mlflow_yolo.tracking.events.ranks import is_first_rank
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.addresses import redact

_LOG = logging.getLogger(__name__)
_USES: Counter[tuple[str, str]] = Counter()
_LOCK = threading.Lock()


class SingleRun:
    """Follows one call of a model; subclasses say what is logged.

    Args:
        options: How to track.
        model_file: The checkpoint the model was loaded from, by which the run of its training is found.

    Attributes:
        events: Ultralytics' events that are listened to; the first one opens the run.
        kind: `val` or `export`: the run's tag, and its name where there is no other.
    """

    events: tuple[str, ...] = ()
    kind = ""

    def __init__(self, options: Options, *, model_file: Path | None) -> None:
        self.options = options
        self.model_file = model_file
        self.run: TrackedRun | None = None
        self.is_adopted = False
        self._destination: Destination | None = None
        self._ambient: BaseException | None = None
        self._failed = False

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Track the call inside the block."""
        self._ambient = sys.exc_info()[1]
        with self._never_failing():
            self._destination = resolve_destination(self.options)
        try:
            yield
        except BaseException as error:
            with self._never_failing():
                self._close(error)
            raise

    def handle(self, event: str, subject: Any) -> None:
        """Take note of an event; never raises."""
        if self._failed or not is_first_rank():
            return
        with self._never_failing():
            self.on_event(event, subject)

    def on_event(self, event: str, subject: Any) -> None:
        """Open the run at the first event, and log what the subject holds."""
        raise NotImplementedError

    def finish(self, result: Any) -> None:
        """Log what the call returned, and close the run; never raises."""
        with self._never_failing():
            if self.run is not None:
                self.log_result(result)
        with self._never_failing():
            self._close(None)

    def log_result(self, result: Any) -> None:
        """Log what the call returned into the open run."""
        raise NotImplementedError

    def open(self, directory: Path) -> TrackedRun:
        """Open the run, journaled in `directory`, or below it where that belongs to another run (a training's)."""
        destination = self._destination or resolve_destination(self.options)
        self.is_adopted = destination.run_id is not None
        if read_run_file(directory) is not None:
            directory = _unused(directory / self.kind)
        tags = {"mlflow_yolo.kind": self.kind, **self._training_tag(), **self.options.extra_tags}
        name = destination.run_name or (None if self.is_adopted else self._name())
        self.run = open_run(
            directory, **destination.place, name=name, tags=self.options.extra_tags if self.is_adopted else tags
        )
        return self.run

    def _name(self) -> str:
        return f"{self.kind} {self.model_file.stem}" if self.model_file else self.kind

    def place_for(self, name: str) -> tuple[str, int]:
        """Return what params and files are put under, and the step of metrics: somebody else's run may hold several.

        Args:
            name: What is logged: a split, or `export`.

        Returns:
            Nothing and 0 in a run of its own; else `val/` and 0, then `val/2/` and 1, … as often as this process has
            logged it there.
        """
        if not self.is_adopted or self._destination is None or self._destination.run_id is None:
            return "", 0
        with _LOCK:
            n_before = _USES[self._destination.run_id, name]
            _USES[self._destination.run_id, name] += 1
        return (f"{name}/{n_before + 1}/" if n_before else f"{name}/"), n_before

    def _training_tag(self) -> dict[str, str]:
        """Return a tag that names the run of the training the checkpoint came from, where that is known."""
        if self.model_file is None or not self.model_file.is_absolute():
            return {}
        for folder in self.model_file.parents[1:3]:
            file = read_run_file(folder)
            if file is not None and file.run_id:
                return {"mlflow_yolo.trained_by": file.run_id}
        return {}

    def _close(self, error: BaseException | None) -> None:
        run, self.run = self.run, None
        if run is None:
            return
        outcome = outcome_of(error)
        if error is not None:
            run.log_text("".join(traceback.format_exception(error)), "traceback.txt")
        delivery = run.close(outcome.status, state=outcome.state)
        if delivery.reason:
            _LOG.warning("mlflow_yolo: %s: %s; send it with: mlflow-yolo replay", run.directory, delivery.reason)

    @contextlib.contextmanager
    def _never_failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._failed:
                reason = redact(" ".join(str(error).split()))[:300]
                _LOG.warning("mlflow_yolo: tracking of %s failed: %s: %s", self.kind, type(error).__name__, reason)
            self._failed = True


def _unused(folder: Path) -> Path:
    """Return `folder`, or `folder2`, …: the first that no run is journaled in."""
    number, found = 1, folder
    while read_run_file(found) is not None:
        number += 1
        found = folder.with_name(f"{folder.name}{number}")
    return found


def chosen(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of these names that are there and not None."""
    return {name: values[name] for name in names if values.get(name) is not None}
