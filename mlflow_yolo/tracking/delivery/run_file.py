"""`run.json` in a run's directory: which run this is, for resuming it and for people."""

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlflow_yolo.tracking.delivery.journal import write_atomically


@dataclass(frozen=True)
class RunFile:
    """The content of `run.json`.

    Attributes:
        uid: Our own id, known before any server is asked.
        run_id: MLflow's id, None until the server has answered.
        tracking_uri: Where the run is tracked, without password.
        experiment: Name of its experiment, None for the id below or MLflow's default.
        experiment_id: Id of its experiment where that was given instead of a name.
        study: Name of the study it belongs to.
    """

    uid: str
    run_id: str | None
    tracking_uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    study: str | None = None


def read_run_file(directory: Path) -> RunFile | None:
    """Return what `directory` says about its run, None where there is no readable `run.json`."""
    try:
        return RunFile(**json.loads((directory / "run.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_run_file(directory: Path, content: RunFile) -> None:
    """Replace `run.json` in one step; a disk that refuses is left for the end of the run to report."""
    with contextlib.suppress(OSError):
        write_atomically(directory / "run.json", json.dumps(asdict(content), indent=2) + "\n")


def note_run_id(directory: Path, *, uid: str, run_id: str) -> None:
    """Add the server's id to `run.json`, unless the directory meanwhile belongs to another run."""
    content = read_run_file(directory)
    if content is not None and content.uid == uid and content.run_id != run_id:
        write_run_file(directory, replace(content, run_id=run_id))
