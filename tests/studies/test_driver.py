"""The driver believes result files, closes what a kill left open, and runs what is missing and nothing else."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.studies.driver import run_pending, settle
from mlflow_yolo.studies.executors import Event, Job, NextJob
from mlflow_yolo.studies.study import Study, Trial, open_study
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.run import open_run
from mlflow_yolo.tracking.stores.target import Target

TRIALS = [Trial(f"t{n}", f"trial {n}", {"freeze": n, "seed": 0}, {}) for n in range(3)]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    with open_study(tmp_path / "runs", "s", config={}, trials=TRIALS, workers=1) as opened:
        yield opened


@pytest.fixture
def target(store: str) -> Target:
    return Target(store, "Default", None, None, None)


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


def finish(attempt: Path, status: str = "finished") -> None:
    (attempt / "result.json").write_text(json.dumps({"status": status}))


def die_in(*attempts: Path) -> None:
    """Open the run of each attempt in a process that dies without closing it."""
    program = """
import json, os, sys
from pathlib import Path
from mlflow_yolo.tracking.run import open_run
runs = [open_run(Path(p), **json.loads((Path(p) / "job.json").read_text())["run"]) for p in sys.argv[1:]]
for run in runs:
    run.log_metrics({"loss": 1.0}, step=1)
    run.flush()
os._exit(9)
"""
    ended = subprocess.run([sys.executable, "-c", program, *map(str, attempts)], capture_output=True, text=True)
    assert ended.returncode == 9, ended.stderr


def run_of(client: MlflowClient, attempt: Path) -> Any:
    file = read_run_file(attempt)
    assert file is not None
    assert file.run_id is not None
    return client.get_run(file.run_id)


@pytest.mark.slow
def test_what_a_kill_left_open_is_closed_as_its_result_says(study: Study, target: Target, client: MlflowClient) -> None:
    without, finished, failed = (study.new_attempt(trial, target.place).parent for trial in TRIALS)
    die_in(without, finished, failed)
    finish(finished)
    finish(failed, "failed")
    assert {run_of(client, attempt).info.status for attempt in (without, finished, failed)} == {"RUNNING"}

    settle(study, target)

    runs = [run_of(client, attempt) for attempt in (without, finished, failed)]
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED", "FAILED"]
    assert [run.data.tags.get("mlflow_yolo.state") for run in runs] == ["interrupted", None, None]
    assert [run.data.metrics for run in runs] == [{"loss": 1.0}] * 3
    assert len(client.search_runs(["0"])) == 3

    before = [run.info.end_time for run in runs]
    settle(study, target)
    assert [run_of(client, attempt).info.end_time for attempt in (without, finished, failed)] == before


def test_attempts_that_never_opened_a_run_are_no_obstacle(study: Study, target: Target, client: MlflowClient) -> None:
    study.new_attempt(TRIALS[0], target.place)
    (study.directory / TRIALS[1].key / "attempt-1").mkdir(parents=True)  # killed before the job file was there

    settle(study, target)

    assert client.search_runs(["0"]) == []
    assert study.pending() == TRIALS


class StubExecutor:
    """Ends every job at once: with a result, or as `outcomes` says."""

    def __init__(self, **outcomes: Sequence[Event]) -> None:
        self.outcomes = outcomes
        self.jobs: list[Job] = []

    def run(self, next_job: NextJob) -> Iterator[Event]:
        while job := next_job():
            self.jobs.append(job)
            if job.key in self.outcomes:
                yield from self.outcomes[job.key]
                continue
            finish(job.file.parent)
            yield Event(job.key, "progress", {"epoch": 1, "epochs": 1, "metric": "m", "value": 0.5})
            yield Event(job.key, "progress", {"seed": 0, "value": 0.5})  # what only some workers say
            yield Event(job.key, "ended", {"exit_code": 0})


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def epoch(self, trial: Trial, values: Mapping[str, Any]) -> None:
        self.told.append((trial.key, values["epoch"], values["value"]))

    def note(self, trial: Trial, text: str) -> None:
        self.told.append((trial.key, text))

    def ended(self, trial: Trial, *, error: str | None, how: str = "finished") -> None:
        self.told.append((trial.key, "ended", error))


@pytest.fixture
def parent(study: Study, store: str) -> Iterator[Any]:
    run = open_run(study.directory, tracking_uri=store, uid=study.uid, name="s")
    run.flush()
    yield run
    run.close()


def test_only_trials_without_a_result_are_run_each_in_a_new_attempt(study: Study, target: Target, parent: Any) -> None:
    finish(study.new_attempt(TRIALS[0], {}).parent)
    finish(study.new_attempt(TRIALS[1], {}).parent, "failed")
    executor, watcher = StubExecutor(), Watcher()

    assert run_pending(study, executor, parent=parent, target=target, watcher=watcher) == 0

    assert [str(job.file.relative_to(study.directory)) for job in executor.jobs] == [
        "t1/attempt-2/job.json",
        "t2/attempt-1/job.json",
    ]
    assert watcher.told == [("t1", 1, 0.5), ("t1", "ended", None), ("t2", 1, 0.5), ("t2", "ended", None)]
    assert study.pending() == []
    again = StubExecutor()
    assert run_pending(study, again, parent=parent, target=target, watcher=watcher) == 0
    assert again.jobs == []


def test_children_are_told_their_parent_their_study_and_their_place(study: Study, target: Target, parent: Any) -> None:
    executor = StubExecutor()
    run_pending(study, executor, parent=parent, target=target, watcher=Watcher())

    run = json.loads(executor.jobs[0].file.read_text())["run"]
    assert (run["parent_uid"], run["parent_run_id"]) == (study.uid, parent.run_id)
    assert parent.run_id is not None
    assert (run["name"], run["study"], run["tracking_uri"]) == ("trial 0", "s", target.tracking_uri)
    assert run["tags"]["mlflow_yolo.study"] == "s"


def test_failures_are_counted_with_their_reason_and_the_others_go_on(study: Study, target: Target, parent: Any) -> None:
    watcher = Watcher()
    executor = StubExecutor(
        t0=[Event("t0", "progress", {"error": "no disk"}), Event("t0", "ended", {"exit_code": 1})],
        t1=[Event("t1", "progress", {"note": "slow"}), Event("t1", "ended", {"exit_code": -9})],
    )

    assert run_pending(study, executor, parent=parent, target=target, watcher=watcher) == 2

    told = {entry[0]: entry[2] for entry in watcher.told if entry[1] == "ended"}
    assert told["t0"] == "no disk"
    assert told["t1"] is not None
    assert "code -9" in told["t1"]
    assert str(study.directory / "t1" / "attempt-1" / "console.log") in told["t1"]
    assert told["t2"] is None
    assert ("t1", "slow") in watcher.told
    assert [trial.key for trial in study.pending()] == ["t0", "t1"]


@pytest.mark.slow
def test_the_run_of_a_worker_that_was_killed_is_closed_at_once(
    study: Study, target: Target, client: MlflowClient, parent: Any
) -> None:
    class Killed(StubExecutor):
        def run(self, next_job: NextJob) -> Iterator[Event]:
            started = list(iter(next_job, None))
            die_in(*(job.file.parent for job in started))
            finish(started[1].file.parent)
            for job in started:
                self.jobs.append(job)
                yield Event(job.key, "ended", {"exit_code": -9})

    executor = Killed()
    assert run_pending(study, executor, parent=parent, target=target, watcher=Watcher()) == 2

    runs = [run_of(client, job.file.parent) for job in executor.jobs]
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED", "KILLED"]
    assert [run.data.tags.get("mlflow_yolo.state") for run in runs] == ["interrupted", None, "interrupted"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.run_id}
