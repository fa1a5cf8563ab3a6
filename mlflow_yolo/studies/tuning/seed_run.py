"""A further seed of a trial in a run of its own below the trial's, with the guarantees of every other child."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training.job import JOB, RESULT, Report, read_json, run_job, write_json


def in_run_below(
    parent: TrackedRun,
    directory: Path,
    *,
    seed: int,
    work: Callable[[TrackedRun], dict[str, Any]],
    report: Report,
    ending: type[BaseException],
) -> dict[str, Any]:
    """Do some work in a new run below `parent` and return its result.

    The folder gets a `job.json` and a `result.json` as an attempt at a trial has them, so that a study settles it as it
    does those.

    Args:
        parent: The trial's open run.
        directory: The seed's own directory.
        seed: The seed.
        work: What is done in the new run.
        report: Told what could not be delivered, and why the work failed.
        ending: What `work` raises when the trial is given up; it is raised again when the run is closed.

    Raises:
        WorkError: The work failed; its run says why.
    """
    given_up: list[BaseException] = []

    def do(run: TrackedRun, _: Report) -> dict[str, Any]:
        try:
            return work(run)
        except ending as end:
            given_up.append(end)
            return {"status": "pruned"}

    directory.mkdir()
    job = {"run": _place(parent, seed), "params": {"seed": seed}}
    write_json(directory / JOB, job)
    said: list[dict[str, Any]] = []
    code = run_job(job, directory=directory, report=said.append, work=do)
    if given_up:
        raise given_up[0]
    if code == 130:
        raise KeyboardInterrupt
    for values in said:
        if "error" in values:
            raise (Shortage if values.get("retry") else WorkError)(f"seed {seed}: {values['error']}")
        report(values)
    return read_json(directory / RESULT)


class Shortage(WorkError, MemoryError):
    """Memory or disk ran out in the training of a seed."""


def _place(parent: TrackedRun, seed: int) -> dict[str, Any]:
    """Return the arguments of `open_run` for a child of a run that is open in this process."""
    known = read_run_file(parent.directory)
    if known is None:
        raise WorkError(f"{parent.directory} has no run.json: nothing says where the run is tracked.")
    return {
        "tracking_uri": known.tracking_uri,
        "experiment": known.experiment,
        "experiment_id": known.experiment_id,
        "name": f"seed={seed}",
        "parent_uid": parent.uid,
        "parent_run_id": parent.run_id,
        "study": known.study,
        "uid": uuid.uuid4().hex,
        "tags": {keys.TAG_STUDY: known.study} if known.study else {},
    }
