"""A run follows its training from set-up to end, whatever happens to either."""

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import mlflow_yolo
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks
from mlflow_yolo.tracking.run import open_run

pytestmark = pytest.mark.slow

Train = Callable[..., Any]


@pytest.fixture
def train(store: str, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path) -> Train:
    """Train the small model tracked, with these further callbacks, and return it with what tracks it."""
    from ultralytics import YOLO

    def train_one(*events: tuple[str, Callable[[Any], None]], source: Path = small_model, **changed: Any) -> Any:
        network = YOLO(source)
        tracked = mlflow_yolo.track(network, log_statistics="off")
        for event, function in events:
            network.add_callback(event, function)
        network.tracked = tracked
        given = {} if changed.get("resume") else {**small_arguments, "save_dir": str(tmp_path / "train")}
        with contextlib.suppress(KeyboardInterrupt):
            network.train(**{**given, **changed})
        return network

    return train_one


def only_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs(["0"])
    return run


def steps(client: MlflowClient, run: Run, key: str = "train/box_loss") -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def interrupt_at(epoch: int) -> tuple[str, Callable[[Any], None]]:
    def interrupt(trainer: Any) -> None:
        if trainer.epoch == epoch:
            raise KeyboardInterrupt

    return "on_train_epoch_start", interrupt


def test_an_interrupted_training_goes_on_in_its_own_run_as_one_training(
    train: Train, client: MlflowClient, tmp_path: Path
) -> None:
    train(interrupt_at(2), epochs=3)
    run = only_run(client)
    assert (run.info.status, run.data.tags["mlflow_yolo.state"]) == ("KILLED", "interrupted")
    assert "weights/last.pt" in {f.path for f in client.list_artifacts(run.info.run_id, "weights")}

    seen: list[str] = []
    network = train(
        ("on_train_epoch_start", lambda _: seen.append(network_status(client, run))),
        source=tmp_path / "train" / "weights" / "last.pt",
        resume=True,
        batch=2,
    )

    run = only_run(client)
    assert network.trainer.mlflow_run_id == network.tracked.run_id == run.info.run_id
    assert (run.info.status, "mlflow_yolo.state" in run.data.tags) == ("FINISHED", False)
    assert steps(client, run) == [1, 2, 3]
    assert (run.data.params["args/batch"], run.data.params["args/attempt2/batch"]) == ("4", "2")
    assert "mlflow_yolo.rejected" not in run.data.tags
    seconds = [m.value for m in client.get_metric_history(run.info.run_id, "seconds_per_epoch")]
    assert run.data.metrics["train_s"] == pytest.approx(sum(seconds))


def network_status(client: MlflowClient, run: Run) -> str:
    return str(client.get_run(run.info.run_id).info.status)


def test_a_training_killed_inside_a_run_of_the_user_goes_on_there_and_ends_it(
    store: str, client: MlflowClient, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path
) -> None:
    program = """
        import json, os, sys, time
        import mlflow, mlflow_yolo
        from ultralytics import YOLO

        def kill(trainer):
            if trainer.epoch == 1:
                time.sleep(1.0)  # what is older than a second must survive
                os.kill(os.getpid(), 9)

        mlflow_yolo.autolog(every_n_steps=1)
        network = YOLO(sys.argv[1])
        network.add_callback("on_train_epoch_start", kill)
        with mlflow.start_run(run_name="theirs"):
            network.train(**json.loads(sys.argv[2]))
    """
    arguments = json.dumps({**small_arguments, "save_dir": str(tmp_path / "train")})
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(small_model), arguments],
        env={**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -9, killed.stderr
    from ultralytics import YOLO

    network = YOLO(tmp_path / "train" / "weights" / "last.pt")
    mlflow_yolo.track(network, every_n_steps=1)
    network.train(resume=True)

    run = only_run(client)
    assert (run.info.run_name, run.info.status, steps(client, run)) == ("theirs", "FINISHED", [1, 2])
    assert "mlflow_yolo.rejected" not in run.data.tags
    statistics = mlflow_yolo.load_statistics(run.info.run_id, tracking_uri=store)
    rows = statistics[(statistics["kind"] == "gradients") & (statistics["statistic"] == "l2")]
    assert rows.groupby("epoch")["step"].nunique().to_dict() == {1: 2, 2: 2}
    assert not rows.duplicated(["epoch", "step", "block"]).any()


def test_a_second_try_after_an_error_is_not_blamed_for_the_first(train: Train, client: MlflowClient) -> None:
    try:
        raise MemoryError("the first try")
    except MemoryError:
        network = train(epochs=1)

    assert client.get_run(network.tracked.run_id).info.status == "FINISHED"


def test_a_failing_end_of_ours_does_not_fail_the_training(
    train: Train, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no end today")

    monkeypatch.setattr("mlflow_yolo.tracking.events.callbacks.read_final_values", fail)
    monkeypatch.setattr("mlflow_yolo.tracking.events.tracked_training.log_model", fail)
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        network = train(epochs=1)

    run = client.get_run(network.tracked.run_id)
    assert (run.info.status, steps(client, run)) == ("FINISHED", [1])
    assert run.data.tags["mlflow_yolo.statistics.cause"].endswith("no end today")
    assert [r.getMessage().split(" failed")[0] for r in caplog.records if "no end today" in r.getMessage()] == [
        "mlflow_yolo: on_train_end",
        "mlflow_yolo: model",
    ]


def test_a_directory_that_another_run_is_writing_costs_the_tracking_and_nothing_else(
    train: Train, store: str, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy = open_run(tmp_path / "train", tracking_uri=store, name="busy")
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        network = train(epochs=1)
    busy.close()

    assert (network.trainer.epoch, network.trainer.mlflow_run_id) == (0, None)
    assert [r.getMessage() for r in caplog.records if "in use" in r.getMessage()] != []
    assert only_run(client).info.run_name == "busy"


def test_a_save_dir_that_disappears_breaks_nothing(train: Train, tmp_path: Path) -> None:
    def remove(trainer: Any) -> None:
        if trainer.epoch == 1:
            shutil.rmtree(trainer.save_dir)

    network = train(("on_train_epoch_start", remove))

    assert network.trainer.epoch == 1
    assert (tmp_path / "train" / "weights" / "best.pt").is_file()


def test_the_run_is_kept_open_where_ultralytics_variable_asks_for_it(
    train: Train, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_KEEP_RUN_ACTIVE", "True")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "kept")
    monkeypatch.setenv("MLFLOW_RUN", "ours")
    network = train(epochs=1)

    run = client.get_run(network.tracked.run_id)
    assert (run.info.run_name, run.info.status) == ("ours", "RUNNING")
    assert client.get_experiment(run.info.experiment_id).name == "kept"
    assert os.environ["MLFLOW_KEEP_RUN_ACTIVE"] == "True"
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("mine", 1.0)
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_model_that_a_workflow_follows_is_not_tracked_twice(
    store: str, client: MlflowClient, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path
) -> None:
    from ultralytics import YOLO

    from mlflow_yolo.tracking.events.callbacks import attach

    network, run = YOLO(small_model), open_run(tmp_path / "run", tracking_uri=store, name="workflow")
    attach(network, TrainingCallbacks(run, statistics="off"))
    mlflow_yolo.autolog(log_statistics="off")
    try:
        network.train(**{**small_arguments, "epochs": 1, "save_dir": str(tmp_path / "train")})
    finally:
        mlflow_yolo.autolog(disable=True)
        run.close()

    assert only_run(client).info.run_name == "workflow"
    assert pd.read_csv(network.trainer.csv).shape[0] == 1
