"""How a training ends is what its run, its result file and its exit code say, all three alike."""

import errno
import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from mlflow_yolo.tracking.delivery.ownership import is_owned
from mlflow_yolo.tracking.delivery.replay import pending_journals, replay
from mlflow_yolo.training.job import read_json, run_job, write_json
from mlflow_yolo.training.plan import Plan, Stage

JobOf = Callable[..., dict[str, Any]]
slow = pytest.mark.slow


def only_run(client: MlflowClient) -> Any:
    (run,) = client.search_runs(["0"])
    return run


@slow
def test_an_error_inside_training_is_failed_with_its_traceback(
    small_plan: Plan, job_of: JobOf, client: MlflowClient, tmp_path: Path
) -> None:
    everything = replace(small_plan, stages=(Stage(1, tuple(range(24)), 0.01, 0.0),))
    reports: list[dict[str, Any]] = []

    code = run_job(job_of(everything), directory=tmp_path / "child", report=reports.append)

    run, result = only_run(client), read_json(tmp_path / "child" / "result.json")
    assert (code, run.info.status, result["status"]) == (1, "FAILED", "failed")
    assert "froze the entire model" in result["error"]
    assert result["error"].startswith("RuntimeError: ")
    assert reports == [{"error": result["error"]}]
    text = Path(client.download_artifacts(run.info.run_id, "traceback.txt", str(tmp_path))).read_text()
    assert text.startswith("Traceback")
    assert "froze the entire model" in text
    assert run.data.params["freeze"] == "2"


@slow
def test_a_mistake_of_the_input_is_reported_in_its_own_words(
    small_plan: Plan, job_of: JobOf, client: MlflowClient, tmp_path: Path
) -> None:
    reports: list[dict[str, Any]] = []

    code = run_job(job_of(replace(small_plan, data="gone.yaml")), directory=tmp_path / "child", report=reports.append)

    assert (code, only_run(client).info.status) == (1, "FAILED")
    assert reports[0]["error"].startswith("data=gone.yaml does not exist")


@slow
def test_an_interruption_is_killed_without_a_result(
    small_plan: Plan, job_of: JobOf, client: MlflowClient, tmp_path: Path
) -> None:
    def interrupt(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    code = run_job(job_of(small_plan), directory=tmp_path / "child", report=interrupt)

    run = only_run(client)
    assert (code, run.info.status, run.data.tags["mlflow_yolo.state"]) == (130, "KILLED", "interrupted")
    assert not (tmp_path / "child" / "result.json").exists()
    assert "train/box_loss" in run.data.metrics


@slow
def test_two_stages_are_one_run_with_steps_that_go_on_from_the_best_weights(
    small_plan: Plan, job_of: JobOf, client: MlflowClient, tmp_path: Path
) -> None:
    plan = replace(small_plan, stages=(Stage(1, (0, 1), 0.01, 0.0), Stage(2, (), 0.002, 0.0)))
    reports: list[dict[str, Any]] = []

    code = run_job(job_of(plan), directory=tmp_path / "child", report=reports.append)

    run = only_run(client)
    assert (code, run.info.status) == (0, "FINISHED")
    assert (run.data.params["args/epochs"], run.data.params["args/stage2/epochs"]) == ("1", "2")
    history = client.get_metric_history(run.info.run_id, "lr/pg0")
    assert [point.step for point in history] == [1, 2, 3]
    assert history[1].value == pytest.approx(0.002)
    assert [(report.get("epoch"), report.get("epochs")) for report in reports] == [(1, 3), (2, 3), (3, 3)], reports
    assert [p.step for p in client.get_metric_history(run.info.run_id, "final/mAP50-95")] == [0]
    frame = pd.read_parquet(tmp_path / "child" / "statistics" / "layers.parquet")
    own = frame[(frame["kind"] == "gradients") & (frame["statistic"] == "l2")]
    assert {epoch: 0 in set(rows["block"]) for epoch, rows in own.groupby("epoch")} == {1: False, 2: True, 3: True}
    arguments = yaml.safe_load((tmp_path / "child" / "train" / "args.yaml").read_text())
    assert arguments["model"] == str(tmp_path / "child" / "stage1" / "weights" / "best.pt")
    assert (arguments["freeze"], arguments["lr0"], arguments["seed"]) == ([], 0.002, 1)
    result = read_json(tmp_path / "child" / "result.json")
    assert result["epochs_trained"] == 3
    assert len(result["curves"]["train/box_loss"]) == 3


@slow
def test_a_dead_server_delays_nothing_and_loses_nothing(
    small_plan: Plan, job_of: JobOf, client: MlflowClient, tmp_path: Path, store: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
    reports: list[dict[str, Any]] = []

    code = run_job(job_of(small_plan, tracking_uri=dead), directory=tmp_path / "child", report=reports.append)

    assert code == 0
    assert "records are not delivered yet" in reports[-1]["note"]
    deadline = time.monotonic() + 10
    while is_owned(tmp_path / "child") and time.monotonic() < deadline:
        time.sleep(0.05)  # the sender lets go of the journal when its last request has ended
    assert len(pending_journals(tmp_path / "child")) == 1
    assert replay(tmp_path / "child", tracking_uri=store).n_pending == 0
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert "final/mAP50-95" in run.data.metrics


def test_work_of_another_kind_is_told_by_its_result(
    job_of: JobOf, small_plan: Plan, client: MlflowClient, tmp_path: Path
) -> None:
    def work(run: Any, report: Any) -> dict[str, Any]:
        run.log_metrics({"answer": 42})
        report({"epoch": 1})
        return {"answer": 42}

    reports: list[dict[str, Any]] = []
    code = run_job(job_of(small_plan), directory=tmp_path / "child", report=reports.append, work=work)

    run, result = only_run(client), read_json(tmp_path / "child" / "result.json")
    assert (code, run.info.status, run.data.metrics["answer"], reports) == (0, "FINISHED", 42, [{"epoch": 1}])
    assert result == {
        "status": "finished",
        "uid": run.data.tags["mlflow_yolo.uid"],
        "params": {"freeze": 2, "seed": 1},
        "answer": 42,
    }


def test_work_that_was_given_up_is_killed_with_a_result(
    job_of: JobOf, small_plan: Plan, client: MlflowClient, tmp_path: Path
) -> None:
    def work(run: Any, report: Any) -> dict[str, Any]:
        return {"status": "pruned", "values": {"size_mb": 2.0}}

    code = run_job(job_of(small_plan), directory=tmp_path / "child", report=print, work=work)

    run, result = only_run(client), read_json(tmp_path / "child" / "result.json")
    assert (code, run.info.status, run.data.tags["mlflow_yolo.state"]) == (0, "KILLED", "pruned")
    assert (result["status"], result["values"]) == ("pruned", {"size_mb": 2.0})


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (MemoryError("3 GiB"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (ValueError("bad"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_shortage_may_be_tried_again_and_nothing_else(
    error: Exception, retry: bool, job_of: JobOf, small_plan: Plan, client: MlflowClient, tmp_path: Path
) -> None:
    def work(run: Any, report: Any) -> dict[str, Any]:
        raise error

    reports: list[dict[str, Any]] = []
    code = run_job(job_of(small_plan), directory=tmp_path / "child", report=reports.append, work=work)

    result = read_json(tmp_path / "child" / "result.json")
    assert (code, only_run(client).info.status, result["status"]) == (1, "FAILED", "failed")
    assert result["error"] == f"{type(error).__name__}: {error}"
    assert result.get("retry", False) is retry
    assert reports == [{name: result[name] for name in ("error", "retry") if name in result}]


def test_a_result_that_cannot_be_written_is_no_result_and_the_reason_is_said(
    job_of: JobOf, small_plan: Plan, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "child" / "result.json" / "in the way").mkdir(parents=True)
    reports: list[dict[str, Any]] = []

    code = run_job(job_of(small_plan), directory=tmp_path / "child", report=reports.append, work=lambda *_: {})

    assert (code, only_run(client).info.status) == (1, "FAILED")
    assert "Is a directory" in reports[0]["error"]
    assert [file.name for file in (tmp_path / "child").glob(".result.json*")] == []


def test_json_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": 2, "y": object()})

    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
