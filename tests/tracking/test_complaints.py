"""What users complain about in Ultralytics' own MLflow callback, one test each; numbers are issues of Ultralytics."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

import mlflow_yolo
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.replay import closing_status, replay
from tests.tracking.stories import Story

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outside_pytest(
    tmp_path_factory: pytest.TempPathFactory,
    store_template: Path,
    small_model: Path,
    small_arguments: Mapping[str, Any],
) -> Mapping[str, Any]:
    """What happens in a process of its own: Ultralytics switches its callback off wherever pytest is loaded.

    At last it exits in the middle of a training whose tracking server is dead.
    """
    program = """
        import json, sys
        from pathlib import Path
        import mlflow, mlflow_yolo
        from ultralytics import YOLO, settings
        from ultralytics.utils import SETTINGS_FILE

        folder, model, arguments = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
        before, seen = Path(SETTINGS_FILE).read_text(), {"built in": settings["mlflow"]}
        mlflow_yolo.autolog(log_statistics="off")
        mlflow.set_experiment("mine")
        with mlflow.start_run(run_name="mine"):
            YOLO(model).train(**arguments, save_dir=str(folder / "tracked"))
        mlflow_yolo.autolog(disable=True)
        seen["experiments"] = sorted(e.name for e in mlflow.search_experiments())
        seen["runs"] = [r.info.run_name for r in mlflow.MlflowClient().search_runs(
            [e.experiment_id for e in mlflow.search_experiments()])]
        seen["settings"] = Path(SETTINGS_FILE).read_text() == before
        network = YOLO(model)
        network.add_callback("on_train_start", lambda trainer: seen.update(back=sum(
            getattr(f, "__module__", "") == "ultralytics.utils.callbacks.mlflow"
            for functions in trainer.callbacks.values() for f in functions)))
        import os
        os.environ["MLFLOW_EXPERIMENT_NAME"] = "mine"
        network.train(**arguments, save_dir=str(folder / "untracked"))
        (folder / "seen.json").write_text(json.dumps(seen))
        mlflow.set_tracking_uri("http://127.0.0.1:9")  # nobody listens there
        mlflow_yolo.autolog(log_statistics="off")
        network = YOLO(model)
        network.add_callback("on_train_epoch_end", lambda trainer: sys.exit(3))
        network.train(**arguments, save_dir=str(folder / "exited"))
    """
    from tests.tracking.stories import new_story

    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        uri = new_story(folder, store_template, patch).uri
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MLFLOW_"))}
    ended = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(program), str(folder), str(small_model)),
            json.dumps({**small_arguments, "epochs": 1}),
        ],
        env={
            **environment,
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ended.returncode == 3, ended.stderr
    return {**json.loads((folder / "seen.json").read_text()), "folder": folder}


def test_01_a_training_goes_into_my_run_and_no_second_run_or_experiment_appears(
    outside_pytest: Mapping[str, Any],
) -> None:
    """#17467, #20678, #18735, #22921: set_experiment, a second run, "run already active"."""
    assert outside_pytest["experiments"] == ["Default", "mine"]
    assert outside_pytest["runs"] == ["mine"]


def test_02_the_run_is_known_after_training_and_takes_more_values(own_runs: Story) -> None:
    """#18365: nothing can be logged after train() without making a new run."""
    run_id = own_runs.seen["trainer"].mlflow_run_id
    own_runs.client.log_metric(run_id, "mine", 1.5)

    assert own_runs.client.get_run(run_id).data.metrics["mine"] == 1.5
    assert own_runs.client.get_run(run_id).info.run_name == "train"


def test_03_the_trained_model_can_be_registered(own_runs: Story) -> None:
    """#8214, #6693, #6638, #8594: artifacts without an MLmodel."""
    mlflow.set_tracking_uri(own_runs.uri)
    version = mlflow.register_model(f"runs:/{own_runs.ids['again']}/model", "registered")

    assert (version.run_id, version.status) == (own_runs.ids["again"], "READY")
    assert Path(own_runs.client.get_model_version_download_uri("registered", version.version), "MLmodel").is_file()


def test_04_tuning_neither_breaks_nor_scatters_runs_of_ours(
    store: str, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """#24699, #16051: one unrelated run per iteration. Its trainings are processes without any callback of ours."""
    from ultralytics import YOLO

    monkeypatch.setattr("ultralytics.engine.tuner.Tuner.__call__", lambda self, iterations: iterations)
    network = YOLO(small_model)
    mlflow_yolo.autolog()
    try:
        result = network.tune(iterations=7, **{**small_arguments, "project": str(tmp_path)})
    finally:
        mlflow_yolo.autolog(disable=True)

    assert result == 7
    assert MlflowClient(tracking_uri=store).search_runs(["0"]) == []


def test_05_paths_with_spaces_and_a_change_of_directory_do_no_harm(
    store_template: Path,
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """#11218, #10438, #7366, #17691: a relative URI means another store after chdir; odd paths break uploads."""
    from ultralytics import YOLO

    from tests.tracking.stories import new_story

    folder = tmp_path / "my folder (é)"
    folder.mkdir()
    told = new_story(folder, store_template, monkeypatch)
    network = YOLO(small_model)
    callbacks = mlflow_yolo.track(network, tracking_uri="sqlite:///mlflow.db", log_statistics="off")
    (folder / "elsewhere").mkdir()
    network.add_callback("on_train_epoch_start", lambda _: os.chdir(folder / "elsewhere"))
    network.train(**{**small_arguments, "epochs": 1, "save_dir": str(folder / "my training #1")})

    told.ids["train"] = str(callbacks.run_id)
    assert told.run("train").info.status == "FINISHED"
    assert "weights/best.pt" in told.artifacts("train")
    assert not (folder / "elsewhere" / "mlflow.db").exists()


def test_06_it_is_off_until_asked_for_and_can_be_switched_off_again(outside_pytest: Mapping[str, Any]) -> None:
    """#2224, #2238: always on, and hard to disable. Ultralytics' settings and callback are as before afterwards."""
    assert outside_pytest["built in"] is True
    assert outside_pytest["settings"] is True
    assert outside_pytest["back"] > 0


def test_07_an_outage_costs_the_training_nothing_and_loses_nothing(
    outside_pytest: Mapping[str, Any],
    store: str,
    dead_uri: str,
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PR 24705, mlflow#19149, #4541: a dead server or missing credentials end or hang the training."""
    from ultralytics import YOLO

    network = YOLO(small_model)
    callbacks = mlflow_yolo.track(network, tracking_uri=dead_uri, log_statistics="off", silent=True)
    network.train(**{**small_arguments, "save_dir": str(tmp_path / "train")})
    assert (network.trainer.epoch, callbacks.run_id) == (1, None)
    assert [record for record in caplog.records if record.name.startswith("mlflow_yolo")] == []  # silent
    # A process that exits in the middle did so with its own code, and has said how its run ended.
    assert closing_status(journal_path(outside_pytest["folder"] / "exited")) == "KILLED"

    assert replay(tmp_path, tracking_uri=store).n_pending == 0
    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/box_loss")] == [1, 2]
    assert callbacks.run_id == run.info.run_id


def test_08_every_file_of_the_training_arrives(own_runs: Story) -> None:
    """#18553, #18365, #3817, #8134: artifacts missing in the store."""
    save_dir = own_runs.folder / "train"
    produced = {f"plots/{path.name}" for pattern in ("*.png", "*.jpg") for path in save_dir.glob(pattern)}
    produced |= {f"weights/{path.name}" for path in (save_dir / "weights").glob("*.pt")} | {"args.yaml", "results.csv"}

    assert len(produced) > 8
    assert produced <= own_runs.artifacts("train")


def test_09_no_point_is_there_twice_and_losses_and_rates_of_every_epoch_are(own_runs: Story) -> None:
    """#18735, #6706: a further point at the end with the values of best.pt; training losses and rates missing."""
    table = pd.read_csv(own_runs.folder / "train" / "results.csv")

    for column in table.columns.drop(["epoch", "time"]):
        key = column.replace("(", "").replace(")", "")
        history = own_runs.client.get_metric_history(own_runs.ids["train"], key)
        logged = {metric.step: metric.value for metric in history}
        assert len(history) == len(logged) == 2
        assert logged == pytest.approx(dict(zip(table["epoch"], table[column], strict=True)), abs=1e-4)


def test_10_every_class_has_its_own_values(own_runs: Story) -> None:
    """#14594, #14837, #17862, #7107."""
    table = pd.read_csv(own_runs.fetch("train", "per_class.csv"))

    assert {"final/AP50-95/bright", "final/AP50-95/dark"} <= set(own_runs.run("train").data.metrics)
    assert list(table["class"]) == ["bright", "dark"]
    assert {"AP50", "AP50-95", "precision", "recall", "F1"} <= set(table.columns)


def test_11_it_works_on_a_model_made_before_and_beside_callbacks_of_my_own(own_runs: Story) -> None:
    """#16270, #8550, #8552: callbacks added too late never fire, `mlflow.autolog()` logs nothing."""
    assert own_runs.seen["user"] == [0, 1, 0]
    assert own_runs.steps("train", "train/box_loss") == [1, 2]


def test_12_gradients_of_every_layer_are_there_although_ultralytics_zeroes_them(own_runs: Story) -> None:
    """#21672, mlflow#8145: by the time a callback fires, gradients are gone."""
    own_statistics = mlflow_yolo.load_statistics(own_runs.ids["train"], tracking_uri=own_runs.uri)
    gradients = own_statistics[(own_statistics["kind"] == "gradients") & (own_statistics["statistic"] == "l2")]

    assert set(gradients["epoch"]) == {1, 2}
    assert (gradients["value"] > 0).all()
    assert "statistics/histograms.npz" in own_runs.artifacts("train")
