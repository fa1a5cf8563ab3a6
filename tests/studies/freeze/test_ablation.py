"""A whole freeze ablation with real workers: one parent, its children, one table; the same again without training."""

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.freeze.ablation import Outcome, run_freeze_ablation
from mlflow_yolo.studies.freeze.question import FreezeQuestion
from mlflow_yolo.tracking.stores.target import Target

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ablation:
    """A finished freeze ablation that several tests look at."""

    question: FreezeQuestion
    target: Target
    output: Path
    outcome: Outcome
    client: MlflowClient

    def again(self, *, target: Target | None = None, **changed: Any) -> Outcome:
        question = replace(self.question, **changed)
        return run_freeze_ablation(question, tracking=target or self.target, workers=1, study="s", output=self.output)

    def runs(self) -> tuple[Any, list[Any]]:
        """Return the parent and its children in the order of their names."""
        runs = self.client.search_runs(["0"])
        (parent,) = [run for run in runs if run.info.run_name == "s"]
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        return parent, sorted(children, key=lambda run: run.info.run_name)


@pytest.fixture(scope="module")
def ablation(
    small_data: Path, small_model: Path, store_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ablation]:
    folder = tmp_path_factory.mktemp("ablation")
    shutil.copyfile(store_template, folder / "mlflow.db")
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "artifacts"),))
    connection.close()
    target = Target(f"sqlite:///{folder / 'mlflow.db'}", "Default", None, None, None)
    question = FreezeQuestion(
        data=str(small_data),
        model=str(small_model),
        freeze="backbone",
        seeds="0",
        strategy="single",
        epochs=1,
        epochs1=None,
        epochs2=None,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="AdamW",
        lr0=0.01,
        lr02=None,
        warmup_epochs=0.0,
        warmup_epochs2=0.0,
        statistics="off",
        arguments={"plots": False, "workers": 0},
    )
    outcome = run_freeze_ablation(question, tracking=target, workers=2, study="s", output=folder / "runs")
    client = MlflowClient(tracking_uri=target.tracking_uri)
    yield Ablation(question, target, folder / "runs", outcome, client)
    client._tracking_client.store.engine.dispose()


def test_there_is_one_parent_with_one_finished_child_per_configuration(ablation: Ablation) -> None:
    parent, children = ablation.runs()

    assert ablation.outcome.n_failed == 0
    assert parent.info.status == "FINISHED"
    assert [(run.info.status, run.data.params["freeze"], run.data.params["seed"]) for run in children] == [
        ("FINISHED", "0", "0"),
        ("FINISHED", "11", "0"),
    ]
    assert {run.data.tags["mlflow_yolo.study"] for run in (parent, *children)} == {"s"}


def test_the_table_is_what_an_independent_reading_of_the_children_gives(ablation: Ablation, tmp_path: Path) -> None:
    parent, children = ablation.runs()
    file = ablation.client.download_artifacts(parent.info.run_id, "table.csv", str(tmp_path))

    table = pd.read_csv(file).set_index("freeze")["test/mAP50-95"]
    assert list(table.index) == ["0", "backbone (11)"]
    assert list(table) == pytest.approx([run.data.metrics["test/mAP50-95"] for run in children], abs=1e-12)


def test_freezing_reaches_the_workers(ablation: Ablation) -> None:
    import torch

    def first_weight(folder: str) -> torch.Tensor:
        file = ablation.output / "s" / folder / "attempt-1" / "train" / "weights" / "last.pt"
        return torch.load(file, weights_only=False)["model"].state_dict()["model.0.conv.weight"]

    baseline, frozen = first_weight("freeze-0_seed-0"), first_weight("freeze-backbone_seed-0")
    _, children = ablation.runs()
    assert not torch.equal(baseline, frozen)
    assert [run.data.metrics["bn_eval"] > 0 for run in children] == [False, True]


def test_without_block_statistics_children_have_none(ablation: Ablation) -> None:
    _, children = ablation.runs()

    assert [key for run in children for key in run.data.metrics if key.startswith("stats/")] == []
    assert list(ablation.output.rglob("layers.parquet")) == []


def test_the_parent_holds_table_figures_report_and_note(ablation: Ablation) -> None:
    parent, _ = ablation.runs()
    files = {file.path for file in ablation.client.list_artifacts(parent.info.run_id)}

    assert {"table.csv", "report.html", "figures"} <= files
    assert "| freeze |" in parent.data.tags["mlflow.note.content"].replace("  ", " ")
    assert parent.data.params["epochs"] == "1"
    assert len(parent.inputs.dataset_inputs) == 1


def test_the_terminal_shows_the_table_and_where_to_look(ablation: Ablation) -> None:
    parent, _ = ablation.runs()

    assert "test mAP50-95" in ablation.outcome.text
    assert parent.info.run_id in ablation.outcome.text
    assert "1 seed, no test over seeds" in ablation.outcome.text


def test_an_untrained_model_is_trained_without_advice(ablation: Ablation) -> None:
    parent, _ = ablation.runs()

    assert "advis" not in ablation.outcome.text
    assert "advice/freeze" not in parent.data.params


def test_a_checkpoint_is_judged_before_it_is_trained_and_the_advice_is_held_against_the_result(
    ablation: Ablation, small_model: Path, tmp_path: Path
) -> None:
    from ultralytics import YOLO

    YOLO(str(small_model), verbose=False).save(tmp_path / "start.pt")
    question = replace(ablation.question, model=str(tmp_path / "start.pt"), freeze="3,backbone")
    outcome = run_freeze_ablation(question, tracking=ablation.target, workers=2, study="a", output=tmp_path / "runs")
    again = run_freeze_ablation(question, tracking=ablation.target, workers=2, study="a", output=tmp_path / "runs")

    (parent,) = [run for run in ablation.client.search_runs(["0"]) if run.info.run_name == "a"]
    files = {file.path for file in ablation.client.list_artifacts(parent.info.run_id)}
    figures = {file.path for file in ablation.client.list_artifacts(parent.info.run_id, "figures")}
    correlation = parent.data.metrics.get("advice/rank_correlation")
    assert 0 <= int(parent.data.params["advice/freeze"]) <= 23
    assert "advice.csv" in files
    assert "figures/freeze_advice.png" in figures
    assert "The freeze advisor, a hint from 8 images" in outcome.text
    assert "The freeze advisor" in parent.data.tags["mlflow.note.content"]
    assert correlation is None or -1 <= correlation <= 1
    assert again.text == outcome.text


def test_the_same_again_trains_nothing_and_shows_the_same_table(ablation: Ablation) -> None:
    before = {run.info.run_id: run.info.end_time for run in ablation.client.search_runs(["0"])}

    outcome = ablation.again()

    assert outcome.text == ablation.outcome.text
    assert {run.info.run_id: run.info.end_time for run in ablation.client.search_runs(["0"])} == before
    assert not list(ablation.output.rglob("attempt-2"))


def test_another_question_under_the_same_name_is_refused(ablation: Ablation) -> None:
    with pytest.raises(ArgumentError, match="epochs"):
        ablation.again(epochs=2)
    with pytest.raises(ArgumentError, match=r"seeds=\[0\], not \[0, 1\]"):
        ablation.again(seeds="0,1")


def test_a_run_of_mlflow_run_that_comes_later_points_to_the_first_parent(ablation: Ablation) -> None:
    parent, children = ablation.runs()
    theirs = ablation.client.create_run("0").info.run_id

    ablation.again(target=replace(ablation.target, run_id=theirs))

    pointer = ablation.client.get_run(theirs)
    assert pointer.data.tags["mlflow_yolo.continues"] == parent.info.run_id
    assert pointer.info.status == "RUNNING"  # `mlflow run` ends what it has opened
    assert [run.info.run_id for run in ablation.runs()[1]] == [run.info.run_id for run in children]
