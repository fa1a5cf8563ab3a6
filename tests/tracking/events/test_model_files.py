"""A checkpoint becomes a model of MLflow without a byte of it being changed."""

import hashlib
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from mlflow_yolo.tracking.events.model_files import log_model
from mlflow_yolo.tracking.run import open_run


def test_the_logged_directory_is_a_model_of_mlflow_and_can_be_registered(
    store: str, tmp_path: Path, client: MlflowClient
) -> None:
    checkpoint = tmp_path / "run" / "best.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    run = open_run(tmp_path / "run", tracking_uri=store, name="run")
    log_model(run, checkpoint, task="detect", names={0: "a", 1: "β"}, imgsz=64)
    assert run.close().reason == ""

    folder = Path(client.download_artifacts(str(run.run_id), "model"))
    model = Model.load(folder)
    assert (folder / "best.pt").read_bytes() == b"weights"
    assert model.flavors["yolo"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert model.flavors["yolo"]["names"] == {0: "a", 1: "β"}
    assert model.model_size_bytes == 7
    mlflow.set_tracking_uri(store)
    assert mlflow.register_model(f"runs:/{run.run_id}/model", "m").run_id == run.run_id


def test_a_missing_checkpoint_is_an_error(store: str, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", tracking_uri=store, name="run")
    with pytest.raises(FileNotFoundError):
        log_model(run, tmp_path / "none.pt", task="detect", names={}, imgsz=64)
    run.close()
