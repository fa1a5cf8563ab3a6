"""Being watched changes nothing of a training, stops nothing and leaves nothing behind."""

import contextlib
import json
import logging
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cloudpickle
import pandas as pd
import pytest
import torch
from torch import nn

from mlflow_yolo.statistics.collector import StepCollector
from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks, attach
from mlflow_yolo.tracking.run import TrackedRun

if TYPE_CHECKING:
    from tests.conftest import RecordedRun

slow = pytest.mark.slow
Train = Callable[..., Any]
Open = Callable[..., TrackedRun]


@pytest.fixture
def train(small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path) -> Train:
    """Train the small model with these callbacks, if any, and return the trainer."""

    def train_one(callbacks: TrainingCallbacks | None = None, folder: str = "train", **changed: Any) -> Any:
        from ultralytics import YOLO

        network = YOLO(small_model)
        if callbacks:
            attach(network, callbacks)
        network.train(**{**small_arguments, "save_dir": str(tmp_path / folder), **changed})
        return network.trainer

    return train_one


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested state as one flat mapping, so that differences can be named."""
    if isinstance(state, Mapping):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{prefix}.{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in flat(value, f"{prefix}[{i}]").items()}
    return {prefix: state}


def differences(first: Any, second: Any) -> list[str]:
    one, two = flat(first), flat(second)
    same = {k: torch.equal(v, two[k]) if isinstance(v, torch.Tensor) else v == two[k] for k, v in one.items()}
    return [key for key, equal in same.items() if not equal] + sorted(one.keys() ^ two.keys())


# ------------------------------------------------------------------------------------------------ nothing is changed


@dataclass(frozen=True)
class Trio:
    """The same training three times: by Ultralytics alone, watched, and watched without block statistics."""

    plain: Any
    default: Any
    off: Any
    runs: Mapping[str, "RecordedRun"]


@pytest.fixture(scope="module")
def trio(
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    recorded_run_type: type["RecordedRun"],
) -> Trio:
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("trio")
    trainers, runs = {}, {}
    for name in ("plain", "default", "off"):
        network = YOLO(small_model)
        if name != "plain":
            runs[name] = recorded_run_type(folder / "runs" / name)
            attach(network, TrainingCallbacks(runs[name], statistics=name))
        network.train(**{**small_arguments, "save_dir": str(folder / name)})
        trainers[name] = network.trainer
    return Trio(**trainers, runs=runs)


@slow
@pytest.mark.parametrize("statistics", ["default", "off"])
def test_training_is_the_same_to_the_last_bit_when_it_is_watched(trio: Trio, statistics: str) -> None:
    plain, watched = trio.plain, getattr(trio, statistics)

    assert differences(plain.model.state_dict(), watched.model.state_dict()) == []
    assert differences(plain.ema.ema.state_dict(), watched.ema.ema.state_dict()) == []
    assert differences(plain.optimizer.state_dict(), watched.optimizer.state_dict()) == []
    first, second = (pd.read_csv(t.csv).drop(columns="time") for t in (plain, watched))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert (trio.runs[statistics].directory / "statistics" / "layers.parquet").exists() == (statistics == "default")


@slow
def test_another_seed_gives_other_weights_so_that_the_comparison_can_fail(trio: Trio, train: Train) -> None:
    assert differences(trio.plain.model.state_dict(), train(epochs=1, seed=2).model.state_dict()) != []


@slow
def test_trainer_and_models_are_given_back_without_a_trace(trio: Trio) -> None:
    saved = torch.load(trio.default.best, weights_only=False)["model"]

    assert "optimizer_step" not in vars(trio.default)
    for model in (trio.default.model, trio.default.ema.ema, saved):
        hooked = [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]
        assert hooked == []


@slow
def test_a_training_that_fails_is_given_back_too_and_keeps_what_was_measured(
    small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    network, trainers = YOLO(small_model), []

    def fail(trainer: Any) -> None:
        trainers.append(trainer)
        if trainer.epoch == 1:
            raise ZeroDivisionError

    attach(network, TrainingCallbacks(recorded_run))
    network.add_callback("on_train_batch_end", fail)
    with pytest.raises(ZeroDivisionError):
        network.train(**{**small_arguments, "save_dir": str(tmp_path / "train")})

    assert "optimizer_step" not in vars(trainers[0])
    frame = pd.read_parquet(recorded_run.directory / "statistics" / "layers.parquet")
    assert set(frame["epoch"]) == {1, 2}  # what was measured of the epoch that failed is kept as well
    assert ("layers.parquet", "statistics") in recorded_run.files
    assert set(recorded_run.tags) == {"mlflow_yolo.statistics.frozen"}


@slow
def test_a_step_that_someone_else_wrapped_is_called_and_left_wrapped(
    small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    network, called = YOLO(small_model), []

    def wrap(trainer: Any) -> None:
        original = trainer.optimizer_step

        def theirs() -> None:
            called.append(trainer.epoch)
            original()

        trainer.optimizer_step = trainer.theirs = theirs

    network.add_callback("on_train_start", wrap)
    attach(network, TrainingCallbacks(recorded_run))
    network.train(**{**small_arguments, "save_dir": str(tmp_path / "train")})

    assert called == [0, 0, 1, 1]
    assert network.trainer.optimizer_step is network.trainer.theirs


@slow
def test_the_same_model_can_be_trained_again_with_callbacks_of_its_own(
    small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    network = YOLO(small_model)
    second_run = type(recorded_run)(tmp_path / "second-run")
    first, second = TrainingCallbacks(recorded_run), TrainingCallbacks(second_run)
    given = {**small_arguments, "epochs": 1}
    attach(network, first)
    network.train(**{**given, "save_dir": str(tmp_path / "one")})
    n_first = len(recorded_run.metrics)
    attach(network, second)
    network.train(**{**given, "save_dir": str(tmp_path / "two")})

    assert len(recorded_run.metrics) == n_first
    assert [len(second.curves()[name]) for name in ("train/box_loss", "seconds")] == [1, 1]
    assert set(flatten(recorded_run)) == set(flatten(second_run))
    assert set(recorded_run.tags) | set(second_run.tags) == {"mlflow_yolo.statistics.frozen"}


def flatten(run: "RecordedRun") -> list[tuple[int, str]]:
    return [(step, key) for step, values in run.metrics for key in values]


# ------------------------------------------------------------------------------------------------ nothing is stopped


@slow
def test_a_callback_that_raises_is_said_once_and_tagged_and_training_goes_on(
    train: Train, recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture
) -> None:
    recorded_run.fails_to_log_metrics = True
    callbacks = TrainingCallbacks(recorded_run)
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        trainer = train(callbacks)

    assert trainer.epoch == 1
    said = [record.getMessage() for record in caplog.records if "on_fit_epoch_end failed" in record.getMessage()]
    assert said == ["mlflow_yolo: on_fit_epoch_end failed, training goes on: RuntimeError: no metrics today"]
    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert "no metrics today" in recorded_run.tags["mlflow_yolo.statistics.cause"]
    assert "optimizer_step" not in vars(trainer)
    assert len(callbacks.curves()["seconds"]) == 2
    assert callbacks.final is not None


@slow
def test_a_statistic_that_fails_is_said_once_and_tagged_and_values_go_on(
    train: Train, recorded_run: "RecordedRun", caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("no statistics today")

    monkeypatch.setattr(StepCollector, "before_step", fail)
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        trainer = train(TrainingCallbacks(recorded_run))

    said = [record.getMessage() for record in caplog.records]
    assert said == ["mlflow_yolo: gradient statistics failed, training goes on: no statistics today"]
    assert recorded_run.tags["mlflow_yolo.statistics"] == "failed"
    assert not [key for _, key in flatten(recorded_run) if key.startswith("stats/")]
    assert [step for step, values in recorded_run.metrics if "train/box_loss" in values] == [1, 2]
    assert "optimizer_step" not in vars(trainer)


def test_curves_of_a_training_without_a_whole_epoch_are_empty(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")

    assert (callbacks.curves(), callbacks.headline_curve(), callbacks.summary()) == ({}, [], {})


# ------------------------------------------------------------------------------------------------------- processes


def test_callbacks_survive_cloudpickle_with_a_live_run(open_tracked: Open) -> None:
    callbacks = TrainingCallbacks(open_tracked(), statistics="default", epoch_offset=4, report=print)

    copy = cloudpickle.loads(cloudpickle.dumps(callbacks))

    assert (copy._offset, copy._report, copy.run.uid) == (4, None, callbacks.run.uid)


@slow
def test_a_pickled_copy_logs_into_the_run_of_the_original_and_leaves_it_open(
    open_tracked: Open, client: Any, train: Train
) -> None:
    run = open_tracked("theirs")
    run.flush()
    copy = cloudpickle.loads(cloudpickle.dumps(TrainingCallbacks(run, statistics="off")))
    train(copy, epochs=1)

    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics["train/box_loss"] > 0) == ("RUNNING", True)
    assert len(client.search_runs(["0"])) == 1


def test_a_pickled_copy_whose_run_is_gone_says_so_once_and_stays_out_of_the_way(
    open_tracked: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run = open_tracked("theirs")
    copy = cloudpickle.loads(cloudpickle.dumps(TrainingCallbacks(run, statistics="off")))
    run.close()
    (tmp_path / "theirs" / "run.json").unlink()
    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        copy.on_train_start(stub_trainer(0, save_dir=tmp_path / "train", args=SimpleNamespace()))
        run_epoch(copy, 0)
        copy.teardown(stub_trainer(1))

    assert [record.getMessage() for record in caplog.records if "failed" in record.getMessage()] == [
        f"mlflow_yolo: on_train_start failed, training goes on: WorkError: {tmp_path / 'theirs'} has no run.json: "
        "nothing says where the run is tracked."
    ]
    assert copy.is_idle


def test_only_the_first_of_several_processes_logs(recorded_run: "RecordedRun", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultralytics.utils.RANK", 1)
    run_epoch(TrainingCallbacks(recorded_run, statistics="off"), 0)
    assert recorded_run.metrics == []

    monkeypatch.setattr("ultralytics.utils.RANK", 0)
    run_epoch(TrainingCallbacks(recorded_run, statistics="off"), 0)
    assert len(recorded_run.metrics) == 1


def test_an_epoch_without_validation_has_no_validation_values(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    run_epoch(callbacks, 0, args=SimpleNamespace(val=False))
    trainer = stub_trainer(1, args=SimpleNamespace(val=False))
    callbacks.on_train_epoch_start(trainer)
    callbacks.on_val_end(SimpleNamespace(training=True))
    callbacks.on_fit_epoch_end(trainer)

    assert ["metrics/mAP50-95B" in values for _, values in recorded_run.metrics] == [False, True]


@slow
def test_callbacks_survive_cloudpickle_in_the_middle_of_a_training(
    small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path, recorded_run: "RecordedRun"
) -> None:
    from ultralytics import YOLO

    callbacks, copies = TrainingCallbacks(recorded_run), []
    network = YOLO(small_model)
    attach(network, callbacks)
    network.add_callback("on_train_batch_end", lambda _: copies.append(cloudpickle.dumps(callbacks)))
    network.train(**{**small_arguments, "epochs": 1, "save_dir": str(tmp_path / "train")})

    assert len(copies) == 2
    assert cloudpickle.loads(copies[0])._blocks is None


@slow
def test_ultralytics_own_mlflow_callback_is_off_and_exactly_one_run_exists(
    store: str, tmp_path: Path, small_model: Path, small_arguments: Mapping[str, Any]
) -> None:
    # In a process of its own: Ultralytics switches its callback off wherever pytest is loaded.
    program = """
        import json, sys
        from pathlib import Path
        from ultralytics import YOLO
        from mlflow_yolo.tracking.events.callbacks import TrainingCallbacks, attach
        from mlflow_yolo.tracking.run import open_run

        uri, folder, model, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
        seen = {}

        def built_in(trainer):
            functions = [f for functions in trainer.callbacks.values() for f in functions]
            return sum(getattr(f, "__module__", "") == "ultralytics.utils.callbacks.mlflow" for f in functions)

        network = YOLO(model)
        network.add_callback("on_pretrain_routine_start", lambda trainer: seen.update(before=built_in(trainer)))
        run = open_run(folder / "run", tracking_uri=uri, name="ours")
        attach(network, TrainingCallbacks(run))
        network.add_callback("on_train_start", lambda trainer: seen.update(after=built_in(trainer)))
        network.train(**arguments, save_dir=str(folder / "train"))
        run.close()
        print(json.dumps(seen))
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ended = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(program), store, str(tmp_path), str(small_model)),
            json.dumps({**small_arguments, "epochs": 1}),
        ],
        env={**environment, "MLFLOW_TRACKING_URI": store, "MLFLOW_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["before"] > 0, ended.stdout + ended.stderr  # else this test would show nothing
    assert seen["after"] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("ours", "FINISHED")]
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


# ---------------------------------------------------------------------------------------------------------- values


class Metrics:
    """A stand-in for Ultralytics' metrics of a detector that finds nothing."""

    box = SimpleNamespace(map=0.0, map50=0.0, mp=0.0, mr=0.0, f1=[], ap_class_index=[])
    names: dict[int, str] = {}  # noqa: RUF012


def stub_trainer(epoch: int, **changed: Any) -> Any:
    """Return as much of a trainer as the epoch events read."""
    given = {
        "epoch": epoch,
        "epochs": 9,
        "metrics": {"metrics/precision(B)": 0.5, "metrics/mAP50-95(B)": 0.1 * (epoch + 1)},
        "tloss": {"box_loss": 1.0},
        "label_loss_items": lambda losses: {f"train/{name}": value for name, value in losses.items()},
        "lr": {"lr/pg0": 0.01},
        "model": nn.BatchNorm2d(1),
        "validator": SimpleNamespace(metrics=Metrics()),
    }
    return SimpleNamespace(**{**given, **changed})


def run_epoch(callbacks: TrainingCallbacks, epoch: int, **changed: Any) -> None:
    trainer = stub_trainer(epoch, **changed)
    callbacks.on_train_epoch_start(trainer)
    callbacks.on_train_batch_start(trainer)
    callbacks.on_train_batch_end(trainer)
    callbacks.on_fit_epoch_end(trainer)


def test_the_metric_that_decides_is_logged_first(recorded_run: "RecordedRun") -> None:
    run_epoch(TrainingCallbacks(recorded_run, statistics="off"), 0)

    assert next(iter(recorded_run.metrics[0][1])) == "metrics/mAP50-95B"


def test_steps_count_from_one_and_go_on_in_a_later_stage(recorded_run: "RecordedRun") -> None:
    first = TrainingCallbacks(recorded_run, statistics="off", is_final=False)
    run_epoch(first, 0)
    run_epoch(first, 1)
    first.on_train_end(stub_trainer(2))
    second = TrainingCallbacks(recorded_run, statistics="off", epoch_offset=2, n_epochs=3, continues=first)
    run_epoch(second, 0)
    second.on_train_end(stub_trainer(1))

    assert [step for step, values in recorded_run.metrics if "train/box_loss" in values] == [1, 2, 3]
    assert second.curves()["metrics/mAP50-95B"] == pytest.approx([0.1, 0.2, 0.1])
    assert second.summary()["epochs_trained"] == 3
    assert [key for _, key in flatten(recorded_run)].count("final/mAP50-95") == 1


def test_the_extra_event_after_the_last_epoch_logs_nothing(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    run_epoch(callbacks, 0)
    before = len(recorded_run.metrics)
    callbacks.on_fit_epoch_end(stub_trainer(1))

    assert len(recorded_run.metrics) == before
    assert len(callbacks.curves()["train/box_loss"]) == 1


def test_an_epoch_that_is_repeated_after_nan_counts_once(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    callbacks.on_train_epoch_start(stub_trainer(0))
    run_epoch(callbacks, 0)

    assert [step for step, _ in recorded_run.metrics] == [1]


def test_a_value_that_is_missing_in_one_epoch_is_nan_there(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    run_epoch(callbacks, 0, metrics={})
    run_epoch(callbacks, 1)

    first, second = callbacks.curves()["metrics/mAP50-95B"]
    assert math.isnan(first)
    assert second == pytest.approx(0.2)


def test_a_classifier_is_judged_by_its_top1(recorded_run: "RecordedRun") -> None:
    reports: list[dict[str, Any]] = []
    callbacks = TrainingCallbacks(recorded_run, statistics="off", report=reports.append)
    run_epoch(callbacks, 0, metrics={"metrics/accuracy_top5": 1.0, "metrics/accuracy_top1": 0.25})

    assert reports == [{"epoch": 1, "epochs": 9, "metric": "metrics/accuracy_top1", "value": 0.25}]
    assert [value for value, _ in callbacks.headline_curve()] == [0.25]


def test_seconds_of_the_curve_add_up(recorded_run: "RecordedRun") -> None:
    callbacks = TrainingCallbacks(recorded_run, statistics="off")
    for epoch in range(3):
        run_epoch(callbacks, epoch)

    seconds = callbacks.curves()["seconds"]
    assert [end for _, end in callbacks.headline_curve()] == pytest.approx([sum(seconds[: i + 1]) for i in range(3)])
    assert callbacks.summary()["train_s"] == pytest.approx(sum(seconds))


def test_more_than_twenty_classes_do_not_become_metrics(recorded_run: "RecordedRun") -> None:
    def end_with(n_classes: int) -> list[str]:
        box = SimpleNamespace(
            **{**vars(Metrics.box), "f1": [0.5] * n_classes, "ap_class_index": range(n_classes)},
            class_result=lambda _: (0.5, 0.5, 0.5, 0.25),
        )
        metrics = SimpleNamespace(box=box, names={i: f"c/{i}" for i in range(n_classes)})
        callbacks = TrainingCallbacks(recorded_run, statistics="off")
        run_epoch(callbacks, 0)
        recorded_run.metrics.clear()
        callbacks.on_train_end(stub_trainer(1, validator=SimpleNamespace(metrics=metrics)))
        return [key for _, key in flatten(recorded_run) if key.startswith("final/AP50-95/")]

    assert end_with(20) == [f"final/AP50-95/c_{i}" for i in range(20)]
    assert end_with(21) == []


def test_an_ultralytics_without_one_of_the_events_is_refused(recorded_run: "RecordedRun") -> None:
    with pytest.raises(AttributeError, match="on_pretrain_routine_start"):
        attach(SimpleNamespace(callbacks={}), TrainingCallbacks(recorded_run))


def test_attaching_twice_replaces_only_our_own(recorded_run: "RecordedRun") -> None:
    from ultralytics import YOLO

    network, theirs = YOLO("yolo11n.yaml"), print
    network.add_callback("on_train_end", theirs)
    first, second = TrainingCallbacks(recorded_run), TrainingCallbacks(recorded_run)
    attach(network, first)
    attach(network, second)

    ours = [
        f.__self__
        for f in network.callbacks["on_train_end"]
        if isinstance(getattr(f, "__self__", None), TrainingCallbacks)
    ]
    assert ours == [second]
    assert theirs in network.callbacks["on_train_end"]
