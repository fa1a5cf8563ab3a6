"""Ultralytics' arguments by their own names."""

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models import arguments


def test_leftover_words_become_typed_arguments() -> None:
    words = ["--hsv_h", "0", "--cos-lr", "true", "--lrf=1e-2", "--classes", "[0, 2]", "--auto_augment", "randaugment"]

    assert arguments.parse_arguments(words) == {
        "hsv_h": 0,
        "cos_lr": True,
        "lrf": 0.01,
        "classes": [0, 2],
        "auto_augment": "randaugment",
    }


@pytest.mark.parametrize(("words", "value"), [(["hsv_h", "0"], "'hsv_h'"), (["--hsv_h"], "--hsv_h has no value")])
def test_words_that_are_no_option_are_named(words: list[str], value: str) -> None:
    with pytest.raises(ArgumentError, match=value):
        arguments.parse_arguments(words)


def test_an_unknown_argument_names_the_nearest_one() -> None:
    with pytest.raises(ArgumentError, match=r"mosiac is not an Ultralytics training argument\. Did you mean mosaic\?"):
        arguments.check_arguments({"mosiac": 0.5})


@pytest.mark.parametrize(("name", "value"), [("hsv_h", 7), ("hsv_h", "much"), ("cos_lr", "maybe"), ("patience", -1)])
def test_a_value_that_ultralytics_refuses_is_named(name: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=name):
        arguments.check_arguments({name: value})


def test_an_argument_that_this_package_sets_is_refused() -> None:
    with pytest.raises(ArgumentError, match="save_dir is set by mlflow_yolo"):
        arguments.check_arguments({"save_dir": "x"})


def test_none_of_the_checks_changes_what_is_right() -> None:
    assert arguments.check_arguments({"hsv_h": 0.0, "cos_lr": True}) == {"hsv_h": 0.0, "cos_lr": True}
    assert arguments.check_optimizer("adamw") == "AdamW"
    assert arguments.check_imgsz(32) == 32
    assert arguments.check_device("cpu") == "cpu"
    arguments.check_positive(epochs=1, batch=None)


def test_optimizer_auto_is_refused_because_it_ignores_lr0() -> None:
    with pytest.raises(ArgumentError, match="optimizer=auto ignores lr0"):
        arguments.check_optimizer("auto")


@pytest.mark.parametrize("device", ["cuda:7", "7", "0,9", "tpu", "gpu"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ArgumentError, match=f"device={device} does not exist"):
        arguments.check_device(device)


def test_several_gpus_in_one_training_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    assert arguments.check_device("auto") == "0"
    assert arguments.check_device("cuda:1") == "1"
    with pytest.raises(ArgumentError, match="device=0,1 names several GPUs"):
        arguments.check_device("0,1")


def test_zero_epochs_train_nothing() -> None:
    with pytest.raises(ArgumentError, match="epochs=0"):
        arguments.check_positive(epochs=0)


def test_a_size_below_the_stride_is_refused() -> None:
    with pytest.raises(ArgumentError, match="imgsz=0 is too small"):
        arguments.check_imgsz(0)
