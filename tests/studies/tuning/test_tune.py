"""A whole search with real workers: trials, proof on a new seed, files; the same again without training; a kill."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.question import TuneQuestion
from mlflow_yolo.studies.tuning.tune import Effort, Outcome, run_tune
from mlflow_yolo.studies.tuning.where import Where
from mlflow_yolo.tracking.stores.target import Target

pytestmark = pytest.mark.slow

WHERE = Where("local", 2, 1, "cpu")
EFFORT = Effort(trials=3, hours=None, patience=None, confirm=1, advice=False)


@dataclass(frozen=True)
class Search:
    """A finished search that several tests look at."""

    question: TuneQuestion
    target: Target
    output: Path
    outcome: Outcome
    client: MlflowClient

    def again(self, effort: Effort = EFFORT, **changed: Any) -> Outcome:
        question = replace(self.question, **changed)
        return run_tune(question, effort=effort, where=WHERE, tracking=self.target, study="s", output=self.output)

    @property
    def parent(self) -> Any:
        (parent,) = [run for run in self.client.search_runs(["0"]) if run.info.run_name == "s"]
        return parent

    @property
    def children(self) -> list[Any]:
        runs = self.client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{self.parent.info.run_id}'")
        return sorted(runs, key=lambda run: int(run.data.tags.get("optuna.number", 99)))


def new_store(folder: Path, template: Path) -> Target:
    """Return a store in `folder`, with its artifacts there."""
    shutil.copyfile(template, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "artifacts"),))
    connection.close()
    return Target(f"sqlite:///{folder / 'mlflow.db'}", "Default", None, None, None)


@pytest.fixture(scope="module")
def question(small_data: Path, small_model: Path) -> TuneQuestion:
    return TuneQuestion(
        data=str(small_data),
        model=str(small_model),
        space="freeze=0:3,lr0=1e-3:1e-1:log,conf=0.1:0.9,iou=0.4:0.7",
        objective="final/mAP50-95",
        constraints="size_mb<=50",
        sampler="random",
        pruner="none",
        seeds="0",
        freeze="0",
        strategy="single",
        lr_decay=1.0,
        epochs=1,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="AdamW",
        lr0=0.01,
        warmup_epochs=0.0,
        statistics="off",
        maps="off",
        arguments={"plots": False, "workers": 0},
    )


@pytest.fixture(scope="module")
def search(question: TuneQuestion, store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    folder = tmp_path_factory.mktemp("tune")
    target = new_store(folder, store_template)
    output = folder / "runs"
    outcome = run_tune(question, effort=EFFORT, where=WHERE, tracking=target, study="s", output=output)
    client = MlflowClient(tracking_uri=target.tracking_uri)
    yield Search(question, target, output, outcome, client)
    client._tracking_client.store.engine.dispose()


def test_every_trial_is_a_finished_child_that_says_which_one_it_is(search: Search) -> None:
    trials = [run for run in search.children if "optuna.number" in run.data.tags]

    assert search.parent.info.status == "FINISHED"
    assert [run.info.status for run in trials] == ["FINISHED"] * 3
    assert [run.data.tags["optuna.number"] for run in trials] == ["0", "1", "2"]
    assert {run.data.tags["optuna.attempt"] for run in trials} == {"1"}
    assert [float(run.data.params["lr0"]) for run in trials] == [row.params["lr0"] for row in search.outcome.found.rows]


def test_the_known_good_values_are_tried_first(search: Search) -> None:
    first = search.outcome.found.rows[0]

    assert first.default
    assert first.params == {"freeze": 0, "lr0": 0.01}


def test_a_trial_has_its_accuracy_its_costs_and_its_operating_point(search: Search) -> None:
    for row, run in zip(search.outcome.found.rows, search.children, strict=False):
        metrics = run.data.metrics
        assert row.values["final/mAP50-95"] == metrics["final/mAP50-95"]
        assert 0 < row.values["size_mb"] == metrics["size_mb"]
        assert 0.1 <= metrics["op/conf"] <= 0.9
        assert 0.4 <= metrics["op/iou"] <= 0.7
        assert row.feasible


def test_the_best_one_is_set_against_the_default_on_a_seed_that_the_search_has_not_seen(search: Search) -> None:
    found = search.outcome.found
    confirming = [run for run in search.children if "confirms" in run.data.params]

    assert found.challenger is not None
    assert not found.challenger.default
    assert {run.data.params["seed"] for run in confirming} == {"1"}
    assert {run.data.params["confirms"] for run in confirming} == {"default", f"trial-{found.challenger.number}"}
    assert found.confirmation is not None
    assert found.confirmation.seeds == (1,)


def test_the_parent_holds_the_table_the_plots_and_the_chosen_checkpoint(search: Search, tmp_path: Path) -> None:
    run_id = search.parent.info.run_id
    names = {file.path for file in search.client.list_artifacts(run_id)}
    assert {"table.csv", "report.html", "search.html", "best.json", "best", "figures"} <= names

    table = pd.read_csv(search.client.download_artifacts(run_id, "table.csv", str(tmp_path)))
    assert list(table["trial"]) == [0, 1, 2]
    chosen = json.loads(Path(search.client.download_artifacts(run_id, "best.json", str(tmp_path))).read_text())
    assert search.outcome.found.best is not None
    assert chosen["lr0"] == search.outcome.found.best.params["lr0"]
    assert "mAP50-95" in search.parent.data.tags["mlflow.note.content"]
    history = search.client.get_metric_history(run_id, "best/final/mAP50-95")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert [metric.value for metric in history] == sorted(metric.value for metric in history)


def test_the_same_command_again_trains_nothing_and_says_the_same(search: Search) -> None:
    before = len(search.client.search_runs(["0"]))

    again = search.again()

    assert again.text == search.outcome.text
    assert len(search.client.search_runs(["0"])) == before


@pytest.mark.parametrize(
    ("changes", "named"), [({"space": "freeze=0:2"}, "space="), ({"objective": "final/mAP50"}, "objective=")]
)
def test_a_name_that_is_taken_by_another_question_is_refused(
    search: Search, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ArgumentError, match=named):
        search.again(**changes)


def test_a_kill_of_the_driver_and_its_workers_counts_no_trial_twice(
    question: TuneQuestion, store_template: Path, tmp_path: Path
) -> None:
    target = new_store(tmp_path, store_template)
    words = ["--data", question.data, "--model", question.model, "--space", "lr0=1e-3:1e-1:log", "--sampler", "random"]
    words += ["--epochs", "1", "--imgsz", "64", "--batch", "4", "--device", "cpu", "--statistics", "off"]
    words += ["--maps", "off", "--trials", "3", "--confirm", "0", "--advice", "false", "--workers", "1", "--study", "k"]
    words += ["--tracking-uri", target.tracking_uri, "--output", str(tmp_path / "runs"), "--plots", "false"]
    command = [sys.executable, "-m", "mlflow_yolo", "tune", *words]

    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as driver:
        _wait_for(tmp_path / "runs" / "k" / "trial-0001" / "attempt-1" / "job.json")
        os.kill(driver.pid, signal.SIGKILL)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert ended.returncode == 0, ended.stderr
    client = MlflowClient(tracking_uri=target.tracking_uri)
    runs = [run for run in client.search_runs(["0"]) if "optuna.number" in run.data.tags]
    client._tracking_client.store.engine.dispose()
    finished = sorted(run.data.tags["optuna.number"] for run in runs if run.info.status == "FINISHED")
    assert finished == ["0", "1", "2"]
    assert all(run.info.status == "KILLED" for run in runs if run.info.status != "FINISHED")
    assert "3 trials: 3 finished, 0 pruned, 0 failed" in ended.stdout


def _wait_for(path: Path, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
