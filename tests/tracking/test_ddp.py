"""Training in several processes: the first one logs, the others are as if this package were not there.

A real training of two processes that Ultralytics starts itself, as it does for two GPUs, but with gloo on the CPU (what
differs is in `gloo_training`). CUDA and NCCL are not reached by any test: they need two GPUs.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pandas as pd
import pytest
from mlflow import MlflowClient

import mlflow_yolo
from tests.tracking.gloo_training import GlooTrainer, fail_in_the_second_process, witness_end, witness_steps


@dataclass(frozen=True)
class Distributed:
    """A training of two processes after its end, seen from the process that started it."""

    folder: Path
    client: MlflowClient
    uri: str
    run_id: str | None
    runs: list[Any]
    ranks: tuple[Mapping[str, Any], Mapping[str, Any]]

    def points(self, key: str) -> list[tuple[int, float]]:
        return sorted((m.step, m.value) for m in self.client.get_metric_history(self.runs[0].info.run_id, key))


@pytest.fixture(scope="module")
def distributed(
    small_model: Path,
    small_arguments: Mapping[str, Any],
    store_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Distributed]:
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("distributed")
    shutil.copyfile(store_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("gloo", artifact_location=str(folder / "artifacts"))
    network = YOLO(small_model)
    tracked = mlflow_yolo.track(network, tracking_uri=uri, experiment="gloo", every_n_steps=1)
    network.add_callback("on_pretrain_routine_end", witness_steps)
    network.add_callback("teardown", witness_end)
    with pytest.MonkeyPatch.context() as patch:
        # Ultralytics' own MLflow callback is silent under pytest; in these processes it shall be there to be taken off.
        patch.delenv("PYTEST_CURRENT_TEST")
        for name in ("GITHUB_ACTIONS", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        network.train(trainer=GlooTrainer, **{**small_arguments, "save_dir": str(folder / "train")})
    everywhere = [found.experiment_id for found in client.search_experiments()]
    assert experiment in everywhere
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    yield Distributed(folder, client, uri, tracked.run_id, client.search_runs(everywhere), (ranks[0], ranks[1]))
    client._tracking_client.store.engine.dispose()


@pytest.mark.slow
def test_two_processes_make_one_finished_run_whose_id_the_parent_knows(distributed: Distributed) -> None:
    assert distributed.ranks[0]["pid"] != distributed.ranks[1]["pid"]
    (run,) = distributed.runs
    assert run.info.status == "FINISHED"
    assert run.info.run_id == distributed.run_id
    assert "mlflow_yolo.statistics" not in run.data.tags
    assert run.data.params["args/imgsz"] == "64"


@pytest.mark.slow
def test_every_value_of_two_processes_arrives_once(distributed: Distributed) -> None:
    for key in ("train/box_loss", "metrics/mAP50-95B", "val/box_loss", "lr/pg0", "stats/gradient_norm"):
        assert [step for step, _ in distributed.points(key)] == [1, 2]
    for key in ("final/mAP50-95", "train_s"):
        assert len(distributed.points(key)) == 1
    results = pd.read_csv(distributed.folder / "train" / "results.csv")
    assert [value for _, value in distributed.points("train/box_loss")] == pytest.approx(
        list(results["train/box_loss"])
    )


@pytest.mark.slow
def test_logged_gradients_are_those_after_the_exchange_between_the_processes(distributed: Distributed) -> None:
    first, second = (rank["steps"] for rank in distributed.ranks)
    frame = mlflow_yolo.load_statistics(distributed.runs[0].info.run_id, tracking_uri=distributed.uri)
    assert not frame.duplicated(["epoch", "step", "block", "kind", "statistic"]).any()
    rows = frame[(frame["kind"] == "gradients") & (frame["statistic"] == "l2")]
    logged = [dict(zip(g["block"], g["value"], strict=True)) for _, g in rows.groupby(["epoch", "step"])]

    assert len(first) == 4
    assert first == second
    assert logged == [pytest.approx({int(block): norm for block, norm in step.items()}, rel=1e-4) for step in first]
    assert set(frame["epoch"][frame["kind"] == "activations"]) == {1, 2}


@pytest.mark.slow
def test_maps_of_two_processes_are_those_of_the_first(distributed: Distributed) -> None:
    files = distributed.client.list_artifacts(distributed.runs[0].info.run_id, "images")
    shown = [file.path.split("/")[-1].split("+")[:3] for file in files if file.path.endswith(".png")]

    maps = sorted((key, int(step)) for key, _, step in shown if key.startswith("cam~"))
    steps = [step for key, step in maps if key == "cam~01-hardest"]
    assert steps == sorted({*steps, 0, 2})
    assert len(maps) == len(set(maps)) >= 5


@pytest.mark.slow
def test_the_second_process_has_no_journal_no_thread_and_its_own_step(distributed: Distributed) -> None:
    journals = list(distributed.folder.rglob("journal.jsonl"))
    opened = [
        json.loads(line) for line in journals[0].read_text().splitlines() if '"type":"open"' in line.replace(" ", "")
    ]

    assert (len(journals), len(opened)) == (1, 1)
    for rank in distributed.ranks:
        assert rank["own_step"]
        assert not [name for name in rank["threads"] if "mlflow" in name.lower()]
    assert not distributed.ranks[1]["mlflow"]


@pytest.mark.slow
def test_a_failure_of_the_second_process_is_a_failed_run_that_keeps_what_it_had(
    store: str, client: MlflowClient, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path
) -> None:
    from ultralytics import YOLO

    network = YOLO(small_model)
    tracked = mlflow_yolo.track(network, tracking_uri=store, log_statistics="off")
    network.add_callback("on_train_batch_start", fail_in_the_second_process)
    with pytest.raises(subprocess.CalledProcessError):
        network.train(trainer=GlooTrainer, **{**small_arguments, "save_dir": str(tmp_path / "train")})

    (run,) = client.search_runs(["0"])
    assert (run.info.run_id, run.info.status) == (tracked.run_id, "FAILED")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/box_loss")] == [1]


@pytest.mark.parametrize(("rank", "n_runs"), [(0, 1), (1, 0), (2, 0)])
def test_callbacks_survive_cloudpickle_and_log_in_the_first_process_only(
    rank: int, n_runs: int, store: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    network = YOLO("yolo11n.yaml")
    mlflow_yolo.track(network, tracking_uri=store)
    copies = cloudpickle.loads(cloudpickle.dumps(network.callbacks))
    monkeypatch.setattr("ultralytics.utils.RANK", rank)
    before = sorted(tmp_path.rglob("*"))

    args = SimpleNamespace(name="train", model="yolo11n.yaml", data="data.yaml", task="detect", resume=False, val=True)
    trainer = SimpleNamespace(callbacks=copies, args=args, save_dir=tmp_path / "train", resume=False, metrics=None)
    for event in ("on_pretrain_routine_start", "on_pretrain_routine_end", "teardown"):
        for function in copies[event]:
            function(trainer)

    assert len(client.search_runs(["0"])) == n_runs
    assert (sorted(tmp_path.rglob("*")) == before) == (n_runs == 0)
