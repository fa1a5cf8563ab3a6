"""`mlflow-yolo train --resume` goes on with what was interrupted, in its own run, and refuses what cannot go on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training import train as training
from mlflow_yolo.training.job import read_json, write_json
from mlflow_yolo.training.resuming import find_interrupted
from mlflow_yolo.training.single import run_training


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


def given(data: Path, model: Path, store: str, output: Path, **changed: Any) -> dict[str, Any]:
    return {
        "data": str(data),
        "model": str(model),
        "freeze": "2",
        "seed": 1,
        "epochs": 2,
        "imgsz": 64,
        "batch": 4,
        "device": "cpu",
        "optimizer": "AdamW",
        "lr0": 0.01,
        "warmup_epochs": 0.0,
        "statistics": "off",
        "trust": False,
        "arguments": {"workers": 0, "plots": False},
        "tracking": Target(store, "Default", None, None, "mine"),
        "output": output,
        **changed,
    }


@pytest.mark.slow
def test_an_interrupted_training_goes_on_in_its_own_run_to_the_same_result_file(
    small_data: Path,
    small_model: Path,
    store: str,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attach = training.attach

    def interrupt_second_epoch(network: Any, callbacks: Any) -> None:
        def interrupt(trainer: Any) -> None:
            if trainer.epoch == 1:
                raise KeyboardInterrupt

        attach(network, callbacks)
        network.add_callback("on_train_epoch_start", interrupt)

    with monkeypatch.context() as patch:
        patch.setattr(training, "attach", interrupt_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            run_training(**given(small_data, small_model, store, tmp_path / "runs"))
    (directory,) = (tmp_path / "runs").iterdir()
    last = directory / "train" / "weights" / "last.pt"

    text = run_training(**given(small_data, small_model, store, tmp_path / "other", resume=str(last)))

    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/box_loss")] == [1, 2]
    assert "mlflow_yolo.rejected" not in run.data.tags
    result = read_json(directory / "result.json")
    assert (result["status"], len(result["curves"]["train/box_loss"])) == ("finished", 2)
    assert "model/MLmodel" in {file.path for file in client.list_artifacts(run.info.run_id, "model")}
    assert text.endswith(f"files: {directory}")
    assert not (tmp_path / "other").exists()
    with pytest.raises(ArgumentError, match="has finished"):
        find_interrupted(str(directory))


def test_a_folder_that_is_no_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=rf"resume={tmp_path} is no training"):
        find_interrupted(str(tmp_path))


def test_a_training_without_a_finished_epoch_cannot_go_on(tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", {"plan": {"stages": [{}]}})

    with pytest.raises(ArgumentError, match="ended before its first epoch"):
        find_interrupted(str(tmp_path))


@pytest.mark.parametrize("weights", ["stage1/weights/last.pt", "train/weights/last.pt"])
def test_a_training_in_two_stages_cannot_go_on(tmp_path: Path, weights: str) -> None:
    write_json(tmp_path / "job.json", {"plan": {"stages": [{}, {}]}})
    last = tmp_path / weights
    last.parent.mkdir(parents=True)
    last.touch()

    with pytest.raises(ArgumentError, match=r"two stages.*Start a new training"):
        find_interrupted(str(last))


def test_a_job_file_holds_no_password(
    small_data: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_yolo.training.single.run_job", lambda *_, **__: 130)
    uri = "http://me:secret@127.0.0.1:9"
    with pytest.raises(KeyboardInterrupt):
        run_training(
            **given(small_data, small_model, uri, tmp_path / "runs", tracking=Target(uri, "Default", None, None, None))
        )

    (file,) = (tmp_path / "runs").rglob("job.json")
    assert "secret" not in file.read_text()
    assert read_json(file)["plan"]["imgsz"] == 64
