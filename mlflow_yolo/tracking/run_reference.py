"""A run without anything alive: what callbacks carry when they are pickled into another process of a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.addresses import with_password


@dataclass(frozen=True)
class RunReference:
    """Names a run that another process has opened and will close.

    Attributes:
        uid: Our id of the run.
        run_id: MLflow's id, None where no server had answered yet.
        directory: Where the other process keeps the run's journal.
    """

    uid: str
    run_id: str | None
    directory: Path

    def open(self, directory: Path) -> TrackedRun:
        """Return the run, journaled in `directory` of this process' own; close it with `keep_active=True`.

        Raises:
            WorkError: Another process is writing there, or nothing says where the run is tracked.
        """
        known = read_run_file(self.directory)
        if known is None:
            raise WorkError(f"{self.directory} has no run.json: nothing says where the run is tracked.")
        place: dict[str, Any] = {"experiment": known.experiment, "experiment_id": known.experiment_id}
        run_id = self.run_id or known.run_id
        # Without an id the run is found, or made, by its uid.
        return open_run(
            directory,
            tracking_uri=with_password(known.tracking_uri),
            run_id=run_id,
            uid=None if run_id else self.uid,
            **place,
        )


def reference_to(run: Any) -> Any:
    """Return a reference to a live run; anything else (a reference, a stand-in of a test) as it is."""
    return RunReference(run.uid, run.run_id, run.directory) if isinstance(run, TrackedRun) else run
