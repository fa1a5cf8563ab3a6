"""A further seed of a trial is a child of the trial's run that ends as its work does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.studies.tuning.seed_run import in_run_below
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.training.job import read_json
from mlflow_yolo.training.shortage import is_shortage


class GivenUp(BaseException):
    pass


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def parent(store: str, tmp_path: Path) -> Iterator[TrackedRun]:
    run = open_run(tmp_path / "trial", tracking_uri=store, experiment="Default", name="trial 0", study="s")
    yield run
    run.close()


def child_of(client: MlflowClient) -> Any:
    return next(run for run in client.search_runs(["0"]) if run.info.run_name == "seed=7")


def below(
    parent: TrackedRun, work: Callable[[TrackedRun], dict[str, Any]], report: Callable[[dict[str, Any]], None] = print
) -> dict[str, Any]:
    folder = parent.directory / "seed-7"
    return in_run_below(parent, folder, seed=7, work=work, report=report, ending=GivenUp)


def raising(error: BaseException) -> Callable[[TrackedRun], dict[str, Any]]:
    def work(run: TrackedRun) -> dict[str, Any]:
        raise error

    return work


def test_its_result_comes_back_and_lies_in_its_folder(parent: TrackedRun, client: MlflowClient) -> None:
    def work(run: TrackedRun) -> dict[str, Any]:
        run.log_metrics({"answer": 42})
        return {"answer": 42}

    found = below(parent, work)
    parent.flush()

    child = child_of(client)
    assert (found["status"], found["answer"]) == ("finished", 42)
    assert read_json(parent.directory / "seed-7" / "result.json") == found
    assert (child.info.status, child.data.metrics["answer"], child.data.params) == ("FINISHED", 42, {"seed": "7"})
    assert child.data.tags["mlflow.parentRunId"] == parent.run_id
    assert child.data.tags["mlflow_yolo.study"] == "s"
    assert read_json(parent.directory / "seed-7" / "job.json")["run"]["uid"] == found["uid"]


def test_a_trial_that_is_given_up_is_given_up_in_both_runs(parent: TrackedRun, client: MlflowClient) -> None:
    with pytest.raises(GivenUp):
        below(parent, raising(GivenUp()))

    child = child_of(client)
    assert (child.info.status, child.data.tags["mlflow_yolo.state"]) == ("KILLED", "pruned")


def test_an_interruption_goes_on(parent: TrackedRun, client: MlflowClient) -> None:
    with pytest.raises(KeyboardInterrupt):
        below(parent, raising(KeyboardInterrupt()))

    child = child_of(client)
    assert (child.info.status, child.data.tags["mlflow_yolo.state"]) == ("KILLED", "interrupted")
    assert not (parent.directory / "seed-7" / "result.json").exists()


def test_a_failure_names_the_seed_and_is_told_once(parent: TrackedRun, client: MlflowClient) -> None:
    said: list[dict[str, Any]] = []
    with pytest.raises(WorkError, match="seed 7: ValueError: bad") as caught:
        below(parent, raising(ValueError("bad")), said.append)

    assert child_of(client).info.status == "FAILED"
    assert said == []
    assert not is_shortage(caught.value)


def test_a_shortage_stays_one(parent: TrackedRun) -> None:
    with pytest.raises(WorkError, match="seed 7: MemoryError") as caught:
        below(parent, raising(MemoryError()))

    assert is_shortage(caught.value)
