"""Which run a resumed training continues: the one whose `run.json` lies beside its checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.delivery.journal import journal_path, opening
from mlflow_yolo.tracking.delivery.run_file import RunFile, read_run_file
from mlflow_yolo.tracking.events.earlier import EarlierAttempts, read_earlier
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.addresses import with_password


@dataclass(frozen=True)
class EarlierRun:
    """A run that is to be continued.

    Attributes:
        directory: Where its journal is continued.
        file: What `run.json` says of it.
        attempts: What was logged into it before.
        has_journal: Whether its journal is still in `directory`.
    """

    directory: Path
    file: RunFile
    attempts: EarlierAttempts = field(default_factory=EarlierAttempts)
    has_journal: bool = True


def find_earlier_run(trainer: Any) -> EarlierRun | None:
    """Return the run of the training that `trainer` resumes, None where it does not resume or was not tracked.

    `run.json` is looked for in Ultralytics' save_dir, in the folder above it (where `mlflow-yolo train` keeps its run),
    and above the checkpoint itself, since a folder that was moved keeps its old save_dir.
    """
    if not getattr(trainer, "resume", False):
        return None
    save_dir = Path(trainer.save_dir).absolute()
    checkpoint = Path(str(getattr(trainer.args, "resume", "") or save_dir / "weights" / "last.pt")).absolute()
    for place in dict.fromkeys([save_dir, save_dir.parent, checkpoint.parent.parent]):
        file = read_run_file(place)
        if file is None:
            continue
        journal = journal_path(place)
        attempts = read_earlier(journal)
        if place in (save_dir, save_dir.parent) and (opening(journal) or {}).get("uid") == file.uid:
            return EarlierRun(place, file, attempts)
        return EarlierRun(save_dir, file, attempts, has_journal=False)
    return None


def open_again(
    earlier: EarlierRun, *, adopt: bool = False, name: str | None = None, tags: Mapping[str, str] | None = None
) -> TrackedRun:
    """Return the earlier run, opened again and RUNNING.

    Args:
        earlier: What `find_earlier_run` returned.
        adopt: Somebody else has opened the run again and will close it.
        name: The run's name, needed where no server has seen the run yet.
        tags: Tags of the run.

    Raises:
        WorkError: Another process is writing the run's journal.
    """
    file = earlier.file
    return open_run(
        earlier.directory,
        tracking_uri=with_password(file.tracking_uri),
        experiment=file.experiment,
        experiment_id=file.experiment_id,
        study=file.study,
        name=name,
        uid=file.uid,
        run_id=file.run_id if adopt or not earlier.has_journal else None,
        tags=tags,
    )
