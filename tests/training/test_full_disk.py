"""A disk that refuses the journal does not stop a training; what is left to say is said at the end."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_yolo.models.checkpoint import read_model
from mlflow_yolo.training.job import run_job
from mlflow_yolo.training.plan import Plan, Stage


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_neither_stops_the_training_nor_loses_its_values(
    tmp_path: Path, store: str, small_data: Path, small_model: Path
) -> None:
    directory = tmp_path / "attempt"
    (directory / "mlflow_yolo").mkdir(parents=True)
    (directory / "mlflow_yolo" / "journal.jsonl").symlink_to("/dev/full")
    model = read_model(str(small_model))
    plan = Plan(
        model=model.source,
        data=str(small_data),
        task="detect",
        stages=(Stage(1, (), 0.01, 0.0),),
        seed=0,
        imgsz=64,
        batch=4,
        device="cpu",
        optimizer="SGD",
        arguments={"plots": False},
    )
    said: list[dict[str, object]] = []

    code = run_job(
        {"plan": plan.to_json(), "params": {"seed": 0}, "shared": str(tmp_path), "run": {"tracking_uri": store}},
        directory=directory,
        report=said.append,
    )

    assert code == 0
    assert json.loads((directory / "result.json").read_text())["status"] == "finished"
    (run,) = MlflowClient(tracking_uri=store).search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert "test/mAP50-95" in run.data.metrics
    assert run.data.params["seed"] == "0"
    (note,) = [str(values["note"]) for values in said if "note" in values]
    assert "No space left" in note
