"""One tracked training from the command line: what it prints, where it writes, what it refuses before it starts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo.exceptions import InputError, WorkError
from mlflow_yolo.models import data
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training import single
from mlflow_yolo.training.job import write_json
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.single import run_training


@pytest.fixture
def train(small_data: Path, small_model: Path, store: str, tmp_path: Path) -> Callable[..., str]:
    def train_one(**changed: Any) -> str:
        given = {
            "data": str(small_data),
            "model": str(small_model),
            "freeze": "2",
            "seed": 1,
            "epochs": 1,
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
            "output": tmp_path / "runs",
        }
        return run_training(**{**given, **changed})

    return train_one


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.mark.slow
def test_a_training_is_one_run_and_says_what_it_scored_on_each_split(
    train: Callable[..., str], client: MlflowClient, tmp_path: Path
) -> None:
    text = train()

    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.info.run_name, run.data.params["freeze"]) == ("FINISHED", "mine", "2")
    found = run.data.metrics
    assert found["bn_eval"] == 2
    lines = text.splitlines()
    assert lines[0] == (
        f"val: mAP50-95 {found['final/mAP50-95']:.3f}, mAP50 {found['final/mAP50']:.3f}, "
        f"precision {found['final/precision']:.3f}, recall {found['final/recall']:.3f} (4 images)"
    )
    assert lines[1].startswith(f"test: mAP50-95 {found['test/mAP50-95']:.3f}, ")
    assert lines[2] == f"files: {next((tmp_path / 'runs').glob('train-*'))}"


@pytest.mark.slow
def test_a_run_that_mlflow_run_opened_is_adopted_and_left_open(
    train: Callable[..., str], client: MlflowClient, store: str
) -> None:
    theirs = client.create_run("0").info.run_id

    train(tracking=Target(store, None, "0", theirs, None))

    (run,) = client.search_runs(["0"])
    assert run.info.run_id == theirs
    assert "final/mAP50-95" in run.data.metrics
    assert run.info.status == "RUNNING"


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch": 0}, "batch=0"),
        ({"imgsz": 0}, "imgsz=0"),
        ({"freeze": "3,6"}, "freeze=3,6 names several"),
        ({"freeze": "99"}, "freeze=99"),
        ({"optimizer": "auto"}, "optimizer=auto"),
        ({"device": "cuda:9"}, "device=cuda:9"),
        ({"model": "none.pt"}, "model=none.pt"),
        ({"data": "none.yaml"}, "data=none.yaml"),
        ({"arguments": {"mosiac": 1}}, "mosiac"),
        ({"lr0": -1.0}, "lr0"),
        ({"seed": -1}, "seed=-1"),
        ({"strategy": "three"}, "strategy=three"),
        ({"strategy": "gradual"}, "epochs=1"),
        ({"strategy": "gradual", "freeze": "0", "epochs": 4}, "nothing to unfreeze with freeze=0"),
        ({"strategy": "two_stage", "epochs1": 0}, "epochs1=0"),
        ({"strategy": "two_stage", "lr02": -1.0}, "lr02"),
        ({"lr_decay": 2.0}, "lr_decay=2"),
    ],
)
def test_what_cannot_work_is_named_and_nothing_is_written(
    train: Callable[..., str], tmp_path: Path, client: MlflowClient, changed: dict[str, Any], value: str
) -> None:
    with pytest.raises(InputError, match=value):
        train(**changed)

    assert not (tmp_path / "runs").exists()
    assert client.search_runs(["0"]) == []


def test_an_output_that_cannot_be_written_is_named(train: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=rf"output={tmp_path / 'file'} cannot be written"):
        train(output=tmp_path / "file")


def test_a_training_that_failed_is_an_error_with_its_reason(
    train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_job: Any, *, directory: Path, report: Any) -> int:
        write_json(directory / "result.json", {"status": "failed", "error": "out of ink"})
        return 1

    monkeypatch.setattr(single, "run_job", fail)
    with pytest.raises(WorkError, match="out of ink"):
        train()


def test_an_interrupted_training_is_an_interruption(train: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "run_job", lambda *_, **__: 130)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_what_is_asked_of_the_statistics_is_what_is_planned(
    train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []
    monkeypatch.setattr(single, "run_job", lambda job, **_: planned.append(Plan.from_json(job["plan"])) or 130)
    with pytest.raises(KeyboardInterrupt):
        train(statistics="all", every_n_steps=7, maps="off")

    assert [(plan.statistics, plan.every_n_steps, plan.maps) for plan in planned] == [("all", 7, 0)]


@pytest.mark.slow
def test_a_gradual_training_with_rates_by_block_says_so_and_logs_as_many_rates_as_any(
    train: Callable[..., str], client: MlflowClient, tmp_path: Path
) -> None:
    slow = {"strategy": "gradual", "freeze": "3", "epochs": 3, "lr_decay": 0.9}
    train(**slow, arguments={"workers": 0, "plots": False, "nbs": 4}, statistics="default", every_n_steps=1)

    (run,) = client.search_runs(["0"])
    expected = {"freeze": "3", "lr0": "0.01", "strategy": "gradual", "lr_decay": "0.9", "unfreeze_every": "1"}
    assert run.data.params.items() >= expected.items()
    assert run.info.status == "FINISHED"
    assert not {tag for tag in run.data.tags if tag == "mlflow_yolo.statistics"}  # no statistic has failed
    assert {key for key in run.data.metrics if key.startswith("lr/")} == {"lr/pg0", "lr/pg1", "lr/pg2"}
    rates = [point.value for point in client.get_metric_history(run.info.run_id, "lr/pg0")]
    assert rates == pytest.approx([0.01 * ((1 - epoch / 3) * 0.99 + 0.01) for epoch in range(3)])
    (file,) = (tmp_path / "runs").rglob("layers.parquet")
    rows = pd.read_parquet(file)
    updates = rows[(rows["kind"] == "gradients") & (rows["statistic"] == "l2") & (rows["block"] >= 0)]
    first = {epoch: set(range(3)) & set(own["block"]) for epoch, own in updates.groupby("epoch")}
    assert first == {1: set(), 2: {1, 2}, 3: {0, 1, 2}}


@pytest.mark.slow
def test_two_stages_are_one_run(train: Callable[..., str], client: MlflowClient) -> None:
    train(strategy="two_stage", epochs1=1, epochs2=2, lr02=0.002)

    (run,) = client.search_runs(["0"])
    found = run.data.params
    assert (found["strategy"], found["freeze"], found["lr0"], found["lr02"]) == ("two_stage", "2", "0.01", "0.002")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "lr/pg0")] == [1, 2, 3]
    assert client.get_metric_history(run.info.run_id, "lr/pg0")[1].value == pytest.approx(0.002)


def test_two_trainings_in_the_same_second_do_not_meet(
    train: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Path] = []

    def note(_job: Any, *, directory: Path, report: Any) -> int:
        places.append(directory)
        return 130

    monkeypatch.setattr(single, "run_job", note)
    monkeypatch.setattr(data.time, "strftime", lambda _: "train-20260101-000000")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train()

    assert len(set(places)) == 2
