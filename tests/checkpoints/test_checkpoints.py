"""The shipped checkpoint: its bytes, its record, what it holds, and what it scores."""

import hashlib
import json
import pickletools
import zipfile
from pathlib import Path

import pytest

from mlflow_yolo import checkpoints
from mlflow_yolo.exceptions import CheckpointError


def test_bytes_are_those_of_the_record() -> None:
    file = checkpoints.path()
    record = json.loads(file.with_suffix(".json").read_text())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]
    assert file.stat().st_size == record["size_bytes"] <= 3_000_000
    assert checkpoints.verify() == file


def test_changed_copy_is_refused_with_both_digests(tmp_path: Path) -> None:
    copy = tmp_path / "digits.pt"
    copy.write_bytes(checkpoints.path().read_bytes() + b" ")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.verify(copy)
    assert str(checkpoints.record()["sha256"]) in str(caught.value)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() in str(caught.value)


def test_record_says_how_it_was_made() -> None:
    record = checkpoints.record()
    assert record["command"] == "python -m mlflow_yolo.training.pretrain --output digits.pt"
    assert record["classes"] == list("0123456789")
    assert record["test"]["mAP50"] >= 0.8
    assert set(record["versions"]) == {"python", "ultralytics", "torch", "numpy"}


def test_record_holds_the_settings_that_the_command_uses() -> None:
    from mlflow_yolo.training.pretrain import N_TRAIN, TRAINING

    training = checkpoints.record()["training"]
    assert {key: training[key] for key in TRAINING} == dict(TRAINING)
    assert training["n_train"] == N_TRAIN


def pickled_strings(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return [str(argument) for _, argument, _ in pickletools.genops(archive.read(name)) if isinstance(argument, str)]


def test_checkpoint_holds_no_path_of_a_machine() -> None:
    strings = pickled_strings(checkpoints.path())
    assert [text for text in strings if "/" in text and not text.startswith(("https://", "AGPL"))] == []


def test_checkpoint_names_only_classes_of_torch_ultralytics_and_python() -> None:
    with zipfile.ZipFile(checkpoints.path()) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        modules = {
            str(argument).split(" ")[0].split(".")[0]
            for opcode, argument, _ in pickletools.genops(archive.read(name))
            if opcode.name == "GLOBAL"
        }
    assert modules <= {"torch", "ultralytics", "collections", "__builtin__", "builtins"}
    assert {"torch", "ultralytics"} <= modules


@pytest.mark.slow
def test_ultralytics_loads_it_as_a_stock_model_without_optimizer() -> None:
    from ultralytics.nn.tasks import load_checkpoint

    model, content = load_checkpoint(checkpoints.path())
    assert type(model).__name__ == "DetectionModel"
    assert model.names == dict(enumerate("0123456789"))
    assert sum(parameter.numel() for parameter in model.parameters()) == checkpoints.record()["parameters"]
    assert set(content) == {"epoch", "model", "train_args", "version", "license", "docs"}
    assert content["epoch"] == -1
    assert [content["train_args"][key] for key in ("data", "project", "name")] == ["digits", None, None]


@pytest.mark.slow
def test_its_test_score_is_the_recorded_one() -> None:
    from mlflow_yolo.datasets.digits import generate
    from mlflow_yolo.training.pretrain import evaluate

    scores = evaluate(checkpoints.path(), data=generate("digits"))
    assert scores["mAP50"] >= 0.8
    assert scores == pytest.approx({key: checkpoints.record()["test"][key] for key in scores}, abs=0.01)
