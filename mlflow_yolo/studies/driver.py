"""The one process that owns a study: it settles what a kill left behind, runs what is missing and shows progress."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mlflow_yolo import keys
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.models.data import localise
from mlflow_yolo.studies.executors import Executor, Job
from mlflow_yolo.studies.executors.local import SubprocessExecutor
from mlflow_yolo.studies.progress import Progress
from mlflow_yolo.studies.study import Study, Trial, read_result, wait_until_free
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.ownership import is_owned
from mlflow_yolo.tracking.delivery.replay import close_interrupted, is_closed, replay
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training.data_cache import warm_label_caches
from mlflow_yolo.training.job import CLOSING
from mlflow_yolo.training.subset import train_subset


class Watcher(Protocol):
    """Who is told how a study goes (see `studies.progress`)."""

    def epoch(self, trial: Trial, values: Mapping[str, Any]) -> None:
        """An epoch of a trial has ended, with `epoch`, `epochs`, `metric` and `value`."""

    def note(self, trial: Trial, text: str) -> None:
        """Something about a trial that people should know."""

    def ended(self, trial: Trial, *, error: str | None, how: str = "finished") -> None:
        """A trial has ended; `error` is None where it has a result, and `how` says which."""


def settle(study: Study, target: Target) -> None:
    """Close the runs that a kill left open: KILLED (interrupted), or as their result says; send what is left.

    Raises:
        WorkError: A worker of the killed driver does not go away.
    """
    for attempt in sorted(study.directory.glob("*/attempt-*")):
        settle_attempt(attempt, target)
    replay(study.directory, interrupted=False)


def settle_attempt(attempt: Path, target: Target) -> None:
    """Close the runs of one attempt whose process is gone, those of further seeds too, unless it closed them itself.

    Raises:
        WorkError: The process does not go away.
    """
    for folder in (*sorted(attempt.glob("seed-*")), attempt):
        _settle(folder, target)


def _settle(attempt: Path, target: Target) -> None:
    wait_until_free(attempt, is_owned=is_owned)
    if is_closed(journal_path(attempt)):
        return
    result = read_result(attempt)
    if result is None:
        close_interrupted(attempt)
    else:
        job = json.loads((attempt / "job.json").read_text())
        run = open_run(attempt, **{**job["run"], "tracking_uri": target.tracking_uri})
        status, state = CLOSING[result["status"]]
        run.close(status, state=state)


def settle_ended(attempt: Path, target: Target) -> None:
    """Close the run of an attempt whose worker has just ended, also where its journal is lost with its machine."""
    settle_attempt(attempt, target)
    if read_result(attempt) is None and not journal_path(attempt).exists():
        job = json.loads((attempt / "job.json").read_text())
        run = open_run(attempt, **{**job["run"], "tracking_uri": target.tracking_uri})
        run.close("KILLED", state="interrupted", timeout_s=5.0)


def train_pending(
    study: Study, dataset: Dataset, *, n_epochs: int, parent: TrackedRun, target: Target, workers: int
) -> int:
    """Train every trial of one dataset that has no result, each in a process of its own; return how many failed.

    Args:
        study: The study, held by this process.
        dataset: The data of all its trials.
        n_epochs: Epochs of each trial.
        parent: The study's open parent run.
        target: Where the runs go.
        workers: Processes at once.
    """
    if not study.pending():
        return 0
    prepare_data(study, dataset)
    environment = {"MLFLOW_TRACKING_URI": target.tracking_uri}
    executor = SubprocessExecutor(workers=workers, threads=study.threads, environment=environment)
    n_finished = len(study.trials) - len(study.pending())
    with Progress(study.name, n_trials=len(study.trials), n_finished=n_finished, n_epochs=n_epochs) as progress:
        return run_pending(study, executor, parent=parent, target=target, watcher=progress)


def prepare_data(study: Study, dataset: Dataset) -> None:
    """Make what the trainings of a study share, before several of them would: label caches and the fixed subset."""
    shared = study.directory / "shared"
    local = localise(dataset, shared)
    warm_label_caches(local)
    warm_label_caches(train_subset(local, shared))


def run_pending(study: Study, executor: Executor, *, parent: TrackedRun, target: Target, watcher: Watcher) -> int:
    """Run every trial that has no result; return how many failed.

    Args:
        study: The study, held by this process.
        executor: Where trials run.
        parent: The study's open parent run.
        target: Where the runs go.
        watcher: Who is told how it goes.
    """
    pending = {trial.key: trial for trial in study.pending()}
    jobs = (
        Job(key, study.new_attempt(trial, child_run(study, trial, parent, target))) for key, trial in pending.items()
    )
    errors: dict[str, str] = {}
    for event in executor.run(lambda: next(jobs, None)):
        trial = pending[event.key]
        if event.kind == "progress" and "error" in event.values:
            errors[event.key] = event.values["error"]
        elif event.kind == "progress" and "note" in event.values:
            watcher.note(trial, event.values["note"])
        elif event.kind == "progress" and "epoch" in event.values:
            watcher.epoch(trial, event.values)
        elif event.kind == "ended":
            if study.result(trial) is None:
                errors.setdefault(event.key, reason(study, trial, event.values["exit_code"]))
            settle_attempt(study.attempts(trial)[-1], target)  # a worker that was killed has left its run open
            watcher.ended(trial, error=errors.get(event.key))
    return len(errors)


def child_run(
    study: Study, trial: Trial, parent: TrackedRun, target: Target, *, tags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the arguments of `open_run` for a child."""
    return {
        **target.place,
        "tracking_uri": without_password(target.tracking_uri),
        "name": trial.name,
        "parent_uid": parent.uid,
        "parent_run_id": parent.run_id,
        "study": study.name,
        "tags": {keys.TAG_STUDY: study.name, **(tags or {})},
    }


def reason(study: Study, trial: Trial, exit_code: int) -> str:
    """Return why a trial ended without a result or an error of its own."""
    console = study.attempts(trial)[-1] / "console.log"
    return f"worker ended with code {exit_code}; see {console}"
