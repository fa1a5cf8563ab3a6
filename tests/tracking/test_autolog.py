"""One line tracks what Ultralytics does; what it does stays the same, and afterwards everything is as it was."""

import hashlib
import importlib
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import mlflow
import pandas as pd
import pytest
import torch
import yaml
from mlflow.models import Model as MlflowModel

import mlflow_yolo
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking import autolog
from mlflow_yolo.tracking.events.lifecycle import TrainingLifecycle
from tests.tracking.stories import METHODS, Story

slow = pytest.mark.slow


@pytest.fixture
def network() -> Any:
    """A model that is made at once."""
    from ultralytics import YOLO

    return YOLO("yolo11n.yaml")


@pytest.fixture
def methods() -> Iterator[type]:
    """Ultralytics' model class, with its own methods back after the test."""
    from ultralytics.engine.model import Model

    yield Model
    mlflow_yolo.autolog(disable=True)


# ------------------------------------------------------------------------------------- as it was, before and after


@slow
def test_disabling_gives_the_class_its_own_functions_back(own_runs: Story) -> None:
    assert own_runs.seen["class after"] == own_runs.seen["class before"]


@slow
def test_callbacks_of_a_model_are_left_as_they_were_found(own_runs: Story) -> None:
    def of_others(found: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        # Ultralytics' own validator and exporter leave functions of theirs behind.
        theirs = "ultralytics."
        return {event: [f for f in functions if not str(getattr(f, "__module__", "")).startswith(theirs)]
                for event, functions in found.items()}  # fmt: skip

    assert of_others(own_runs.seen["callbacks after"]) == of_others(own_runs.seen["callbacks before"])
    assert own_runs.seen["user"] == [0, 1, 0]  # the user's own callback went on being called


@slow
def test_no_thread_of_ours_outlives_the_calls(own_runs: Story) -> None:
    assert own_runs.seen["threads"] == []


@slow
def test_the_environment_is_left_alone(own_runs: Story) -> None:
    theirs = {"CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED"}  # Ultralytics sets and removes both
    before, after = (own_runs.seen[f"environment {when}"] for when in ("before", "after"))

    assert len(before) > len(theirs)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= theirs


@slow
def test_training_is_the_same_to_the_last_bit_with_and_without(own_runs: Story) -> None:
    plain, tracked = own_runs.seen["plain"], own_runs.seen["trainer"]

    for first, second in ((plain.model, tracked.model), (plain.ema.ema, tracked.ema.ema)):
        states = first.state_dict(), second.state_dict()
        assert [key for key in states[0] if not torch.equal(states[0][key], states[1][key])] == []
    losses = [pd.read_csv(trainer.csv).drop(columns="time") for trainer in (plain, tracked)]
    pd.testing.assert_frame_equal(*losses, check_exact=True)


@slow
def test_a_checkpoint_loads_where_this_package_cannot_be_imported(own_runs: Story) -> None:
    program = """
        import sys
        sys.modules["mlflow_yolo"] = None
        from ultralytics import YOLO
        print(YOLO(sys.argv[1]).names)
    """
    best = own_runs.folder / "train" / "weights" / "best.pt"
    last = own_runs.folder / "train" / "weights" / "last.pt"
    for checkpoint in (best, last):
        command = [sys.executable, "-c", textwrap.dedent(program), str(checkpoint)]
        assert subprocess.check_output(command, text=True).splitlines()[-1] == "{0: 'bright', 1: 'dark'}"


# ------------------------------------------------------------------------------------------------- runs of their own


@slow
def test_every_call_is_one_finished_run_and_prediction_is_none(own_runs: Story) -> None:
    found = {(run.info.run_name, run.info.status) for run in own_runs.runs()}

    assert found == {
        ("train", "FINISHED"),
        ("again", "FINISHED"),
        ("val best", "FINISHED"),
        ("export best", "FINISHED"),
    }
    assert len(own_runs.runs()) == 4


@slow
def test_epochs_are_steps_and_the_best_checkpoint_is_no_further_step(own_runs: Story) -> None:
    assert own_runs.steps("train", "train/box_loss") == [1, 2]
    assert own_runs.steps("train", "metrics/mAP50-95B") == [1, 2]
    assert own_runs.steps("train", "final/mAP50-95") == [0]
    assert own_runs.steps("again", "train/box_loss") == [1]


@slow
def test_every_second_step_is_sampled_where_that_is_asked(own_runs: Story) -> None:
    frame = mlflow_yolo.load_statistics(own_runs.ids["train"], tracking_uri=own_runs.uri)
    steps = frame[(frame["kind"] == "gradients") & (frame["statistic"] == "l2")].groupby("epoch")["step"]

    assert steps.unique().map(list).to_dict() == {1: [0], 2: [0]}  # two batches, so two steps an epoch


@slow
def test_a_training_is_described_by_numbers_that_can_be_compared(own_runs: Story) -> None:
    params = own_runs.run("train").data.params

    assert {name: params[name] for name in ("seed", "lr0", "freeze", "task")} == {
        "seed": "1",
        "lr0": "0.01",
        "freeze": "2",
        "task": "detect",
    }
    assert params["args/imgsz"] == "64"


@slow
def test_the_files_of_a_training_are_in_the_store(own_runs: Story) -> None:
    files = own_runs.artifacts("train")

    assert {"args.yaml", "results.csv", "per_class.csv", "weights/best.pt", "weights/last.pt"} <= files
    assert {"plots/results.png", "plots/confusion_matrix.png", "statistics/layers.parquet"} <= files
    assert any(file.startswith("images/predictions~batch0+step+2+") for file in files)


@slow
def test_the_best_checkpoint_is_a_model_that_can_be_registered(own_runs: Story) -> None:
    folder = own_runs.fetch("train", "model")
    flavor = MlflowModel.load(folder).flavors["yolo"]
    best = (own_runs.folder / "train" / "weights" / "best.pt").read_bytes()

    assert (folder / flavor["data"]).read_bytes() == best
    assert flavor["sha256"] == hashlib.sha256(best).hexdigest()
    assert (flavor["task"], flavor["names"], flavor["imgsz"]) == ("detect", {0: "bright", 1: "dark"}, 64)
    assert set(flavor["versions"]) == {"ultralytics", "torch", "mlflow-yolo"}


@slow
def test_tags_name_the_wanted_registration_and_the_users_own(own_runs: Story) -> None:
    tags = own_runs.run("train").data.tags

    assert (tags["mlflow_yolo.registered_model_name"], tags["team"]) == ("squares", "eyes")
    assert own_runs.client.search_registered_models() == []


@slow
def test_the_dataset_is_an_input_with_counts_and_a_digest(own_runs: Story, small_data: Path) -> None:
    (of_training,) = own_runs.run("train").inputs.dataset_inputs
    (again,) = own_runs.run("again").inputs.dataset_inputs
    (of_validation,) = own_runs.run("val").inputs.dataset_inputs

    profile = json.loads(of_training.dataset.profile)
    assert of_training.dataset.name == small_data.parent.name
    assert profile["train"] == {"images": 8, "backgrounds": 0, "objects": 16}
    assert profile["classes"]["dark"] == {"train": 8, "val": 4}
    assert again.dataset.digest == of_training.dataset.digest != of_validation.dataset.digest
    assert [tag.value for tag in of_validation.tags] == ["test"]


@slow
def test_a_validation_names_its_split_its_arguments_and_the_run_of_its_training(own_runs: Story) -> None:
    run = own_runs.run("val")

    assert {"test/mAP50-95", "test/precision", "test/AP50-95/bright", "test/inference_ms"} <= set(run.data.metrics)
    assert not [key for key in run.data.metrics if not key.startswith("test/")]
    assert (run.data.params["split"], run.data.params["conf"], run.data.params["imgsz"]) == ("test", "0.01", "64")
    assert run.data.tags["mlflow_yolo.trained_by"] == own_runs.ids["train"]
    assert "plots/confusion_matrix.png" in own_runs.artifacts("val")


@slow
def test_an_export_names_its_file_its_digest_and_keeps_it(own_runs: Story) -> None:
    run, exported = own_runs.run("export"), own_runs.seen["exported"]

    assert run.data.params["format"] == "torchscript"
    assert run.data.params["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert run.data.metrics["export/size_mb"] == pytest.approx(exported.stat().st_size / 1e6)
    assert own_runs.fetch("export", f"export/{exported.name}").read_bytes() == exported.read_bytes()
    assert run.data.tags["mlflow_yolo.trained_by"] == own_runs.ids["train"]


# ------------------------------------------------------------------------------------------------ runs of somebody else


@slow
def test_a_training_logs_into_the_active_run_and_leaves_it_open(active_runs: Story) -> None:
    assert active_runs.ids["first"] == active_runs.ids["outer"]
    assert active_runs.seen["outer status"] == "RUNNING"
    assert active_runs.run("outer").info.status == "FINISHED"  # by the end of its own `with`
    assert active_runs.run("outer").data.params["lr0"] == "mine"
    assert active_runs.run("outer").data.params["args/lr0"] == "0.01"


@slow
def test_a_second_training_in_the_same_run_is_nested_so_that_no_steps_mix(active_runs: Story) -> None:
    second = active_runs.run("second")

    assert second.data.tags["mlflow.parentRunId"] == active_runs.ids["outer"]
    assert (second.info.status, second.info.run_name) == ("FINISHED", "second")
    assert second.info.experiment_id == active_runs.run("outer").info.experiment_id
    assert active_runs.steps("outer", "train/box_loss") == active_runs.steps("second", "train/box_loss") == [1]


@slow
def test_a_fold_with_a_nested_run_of_its_own_logs_there(active_runs: Story) -> None:
    assert active_runs.ids["nested"] == active_runs.ids["child"]
    assert active_runs.run("child").data.tags["mlflow.parentRunId"] == active_runs.ids["parent"]
    assert active_runs.run("parent").data.metrics == {}


@slow
def test_exclusive_leaves_the_active_run_alone(active_runs: Story) -> None:
    run = active_runs.run("exclusive")

    assert run.info.run_id != active_runs.ids["outer"]
    assert "mlflow.parentRunId" not in run.data.tags


@slow
def test_what_shall_not_be_logged_is_not(active_runs: Story) -> None:
    logged = active_runs.artifacts("exclusive")

    assert (active_runs.folder / "exclusive" / "results.png").is_file()  # else there was nothing to leave out
    assert logged == {"args.yaml", "results.csv", "per_class.csv"}
    assert active_runs.run("exclusive").inputs.dataset_inputs == []
    assert {"weights/best.pt", "model/MLmodel"} <= active_runs.artifacts("second")


@slow
def test_validations_in_one_run_are_steps_and_say_what_they_were_made_with(active_runs: Story) -> None:
    params = active_runs.run("outer").data.params

    assert active_runs.steps("outer", "val/mAP50-95") == [0, 1]
    assert (params["val/conf"], params["val/2/conf"]) == ("0.1", "0.2")


@slow
def test_mlflows_own_state_is_read_and_never_changed(active_runs: Story) -> None:
    assert active_runs.seen["active"] is None
    assert {run.info.run_name for run in active_runs.runs("folds")} == {
        *("outer", "second", "exclusive", "folds", "fold 1")
    }
    assert active_runs.runs("Default") == []


# -------------------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"log_statistics": "some"}, "log_statistics='some'"),
        ({"every_n_steps": 0}, "every_n_steps=0"),
        ({"log_maps": -3}, "log_maps=-3"),
    ],
)
def test_an_option_that_is_no_value_is_named(given: dict[str, Any], value: str, methods: Any) -> None:
    with pytest.raises(ArgumentError, match=value):
        mlflow_yolo.autolog(**given)

    assert not hasattr(methods.train, "__wrapped__")


def test_something_else_than_a_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"model=3 is no Ultralytics model"):
        mlflow_yolo.track(3)


def test_truth_values_mean_levels() -> None:
    levels = {given: autolog.check_options(log_statistics=given, every_n_steps=None, extra_tags=None).statistics
              for given in (True, False, "ALL")}  # fmt: skip

    assert levels == {True: "default", False: "off", "ALL": "all"}


def test_maps_are_wanted_as_often_as_the_budget_allows_never_or_every_so_many_epochs() -> None:
    given: list[bool | int] = [True, False, 1, 5]
    plain: Any = {"log_statistics": "off", "every_n_steps": None, "extra_tags": None}

    assert [autolog.check_options(log_maps=maps, **plain).maps for maps in given] == [None, 0, 1, 5]


def test_a_version_that_was_not_tested_is_said_or_not_tracked(
    methods: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(autolog, "SUPPORTED", "<8.4")
    own = methods.train
    mlflow_yolo.autolog(disable_for_unsupported_versions=True, silent=True)
    assert (methods.train, caplog.records) == (own, [])

    with caplog.at_level(logging.WARNING, logger="mlflow_yolo"):
        mlflow_yolo.autolog()
    assert methods.train is not own
    assert "was not tested" in caplog.text


def test_the_versions_are_those_the_package_requires(repository: Path) -> None:
    assert f'"ultralytics{autolog.SUPPORTED}"' in (repository / "pyproject.toml").read_text()


def test_a_method_that_somebody_wrapped_meanwhile_still_works_after_disabling(
    methods: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(methods, "tune", lambda self, name=None: calls.append(name))
    mlflow_yolo.autolog()
    ours = methods.tune
    monkeypatch.setattr(methods, "tune", lambda self, name=None: ours(self, name=name))
    mlflow_yolo.autolog(disable=True)

    methods.tune(SimpleNamespace(callbacks={}), name="theirs")
    assert calls == ["theirs"]


def test_a_module_that_was_imported_anew_does_not_track_twice(methods: Any) -> None:
    own = methods.train
    mlflow_yolo.autolog()
    importlib.reload(sys.modules["mlflow_yolo.tracking.autolog.patches"])
    mlflow_yolo.autolog()
    assert methods.train.__wrapped__ is own

    mlflow_yolo.autolog(disable=True)
    assert methods.train is own


@pytest.mark.parametrize("outer", ["tune", "benchmark"])
def test_nothing_is_tracked_inside_tuning_and_benchmarks(
    methods: Any, network: Any, outer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hooks: dict[str, int] = {}

    def export(model: Any, **_: Any) -> str:
        hooks[str(len(hooks))] = len(model.callbacks["on_export_start"])
        return str(tmp_path / "x.onnx")

    monkeypatch.setattr(methods, "export", export)
    monkeypatch.setattr(methods, outer, lambda self: self.export())
    mlflow_yolo.autolog()
    network.export()
    getattr(network, outer)()
    mlflow_yolo.track(network)
    getattr(network, outer)()

    first, *inside = hooks.values()
    assert inside == [first - 1, first - 1]


# ------------------------------------------------------------------------------------------------------------- track


def hooks_of(network: Any) -> list[TrainingLifecycle]:
    functions = network.callbacks["on_train_start"]
    return [function.listener for function in functions if hasattr(function, "listener")]


def test_tracking_a_model_again_replaces_the_options_and_nothing_is_there_twice(network: Any) -> None:
    first = mlflow_yolo.track(network, run_name="one")
    second = mlflow_yolo.track(network, run_name="two", log_images=False)

    assert second is first
    assert hooks_of(network) == [first]
    assert (first.options.run_name, first.options.log_images, first.run_id) == ("two", False, None)


def test_a_model_that_is_no_longer_tracked_is_as_before(network: Any) -> None:
    before = {event: list(functions) for event, functions in network.callbacks.items()}
    mlflow_yolo.track(network)
    mlflow_yolo.track(network, disable=True)

    assert {event: list(functions) for event, functions in network.callbacks.items()} == before
    assert not set(METHODS) & set(vars(network))


def test_arguments_called_name_and_model_reach_ultralytics(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(type(network), "train", lambda self, **given: seen.update(given))
    mlflow_yolo.track(network)
    network.train(name="mine", model="theirs", original=1)

    assert seen == {"name": "mine", "model": "theirs", "original": 1}


def test_callbacks_that_the_user_takes_off_stay_off(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow_yolo.track(network)
    network.reset_callbacks()
    seen: list[int] = []
    monkeypatch.setattr(type(network), "train", lambda self: seen.append(len(hooks_of(self))))
    network.train()

    assert seen == [0]


def test_a_lifecycle_travels_as_plain_settings_with_the_callers_destination_and_no_password(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = autolog.check_options(
        log_statistics="off", every_n_steps=3, extra_tags={"a": 1}, tracking_uri="http://me:secret@tracking:5000"
    )
    sent = cloudpickle.dumps(TrainingLifecycle(options, defaults={"lr0": 0.01}))
    with mlflow.start_run() as active:
        inside = cloudpickle.dumps(
            TrainingLifecycle(
                autolog.check_options(log_statistics="off", every_n_steps=None, extra_tags=None), defaults={}
            )
        )

    copy, within = cloudpickle.loads(sent), cloudpickle.loads(inside)
    assert b"secret" not in sent
    assert (copy.options.every_n_steps, copy.options.extra_tags, copy.run_id) == (3, {"a": "1"}, None)
    assert copy._destination.run_id is None
    assert within._destination.run_id == active.info.run_id


@slow
def test_a_training_that_fails_before_it_is_set_up_is_a_failed_run_with_its_reason(
    store: str, small_model: Path, small_arguments: Mapping[str, Any], tmp_path: Path
) -> None:
    from ultralytics import YOLO

    network = YOLO(small_model)
    callbacks = mlflow_yolo.track(network, run_name="broken", log_statistics="off")
    (tmp_path / "gone.yaml").write_text(yaml.safe_dump({"train": "nowhere", "val": "nowhere", "names": ["a"]}))
    with pytest.raises(RuntimeError, match=r"gone\.yaml"):
        network.train(**{**small_arguments, "data": str(tmp_path / "gone.yaml"), "save_dir": str(tmp_path / "train")})

    client = mlflow.MlflowClient(tracking_uri=store)
    run = client.get_run(str(callbacks.run_id))
    assert (run.info.run_name, run.info.status) == ("broken", "FAILED")
    reason = Path(client.download_artifacts(run.info.run_id, "traceback.txt")).read_text()
    assert "gone.yaml" in reason
