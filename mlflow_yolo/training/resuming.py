"""Finding the training that `mlflow-yolo train --resume` means, from what it wrote beside its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.scan import scan
from mlflow_yolo.training.job import JOB, RESULT, read_json

LAST = Path("train") / "weights" / "last.pt"


@dataclass(frozen=True)
class Interrupted:
    """A training that can go on.

    Attributes:
        directory: Its directory.
        job: What it was started with, see `job.run_job`.
    """

    directory: Path
    job: dict[str, Any]


def find_interrupted(place: str, *, trust: bool = False) -> Interrupted:
    """Return the training of a directory or of its `last.pt`.

    Args:
        place: The directory that `mlflow-yolo train` printed, or a checkpoint in it.
        trust: Load its checkpoint even when that names foreign classes.

    Raises:
        ArgumentError: There is no such training, it has finished, has two stages, or ended before its first epoch did.
        CheckpointError: The checkpoint would run code when it is loaded.
    """
    path = Path(place).expanduser().absolute()
    directory = next((folder for folder in (path, *path.parents[:3]) if (folder / JOB).is_file()), None)
    if directory is None:
        raise ArgumentError(
            f"resume={place} is no training of `mlflow-yolo train`: no {JOB} there. Name the folder it printed. "
            "A training of your own script resumes there: YOLO('last.pt').train(resume=True)."
        )
    result = directory / RESULT
    if result.is_file() and read_json(result)["status"] == "finished":
        raise ArgumentError(f"resume={place} has finished: nothing to resume. Start a new training.")
    job = read_json(directory / JOB)
    if len(job["plan"]["stages"]) > 1:
        raise ArgumentError(
            f"resume={place} trains in two stages, which cannot go on in between. Start a new training."
        )
    last = directory / LAST
    if not last.is_file():
        raise ArgumentError(f"resume={place} ended before its first epoch did: no {LAST}. Start a new training.")
    if not trust:
        scan(last)
    return Interrupted(directory, job)
