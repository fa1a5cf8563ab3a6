"""A teacher that cannot teach this student is refused in one line, before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from mlflow_yolo.compression.distillation.feature_maps import head_widths
from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.compression.distillation.teacher import check_levels, open_teacher
from mlflow_yolo.exceptions import ArgumentError
from tests.compression.distillation.networks import NAMES, checkpoint, model_yaml


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture(scope="module")
def detector(folder: Path) -> Path:
    return checkpoint(folder, "yolo11n", "detect")


def settings(teacher: object, *losses: str, **more: Any) -> Distillation:
    return Distillation(str(teacher), dict.fromkeys(losses or ("response",), 1.0), **more)


def refusal(
    teacher: object, *losses: str, task: str = "detect", names: tuple[str, ...] = NAMES, channels: int = 3
) -> str:
    with pytest.raises(ArgumentError) as caught:
        open_teacher(settings(teacher, *losses), task=task, names=names, channels=channels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("names", [NAMES, dict(enumerate(NAMES))], ids=["list", "by number"])
def test_a_fitting_teacher_is_ready_and_frozen(detector: Path, names: Any) -> None:
    network = open_teacher(settings(detector), task="detect", names=names)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "teacher=" in (message := refusal(tmp_path / "nowhere.pt"))
    assert "nowhere.pt" in message


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    assert "text.pt" in refusal(tmp_path / "text.pt")


def test_a_checkpoint_with_foreign_code_needs_trust(tmp_path: Path, detector: Path) -> None:
    content = torch.load(detector, weights_only=False) | {"extra": Distillation("t.pt", {"response": 1.0})}
    torch.save(content, tmp_path / "foreign.pt")
    assert "foreign code" in refusal(tmp_path / "foreign.pt")
    open_teacher(settings(tmp_path / "foreign.pt", trust=True), task="detect", names=NAMES)


def test_an_untrained_model_is_no_teacher(folder: Path) -> None:
    assert "untrained" in refusal(model_yaml(folder, "yolo11n", "detect", width=0.125))


def test_a_teacher_of_another_task_is_refused(folder: Path) -> None:
    message = refusal(checkpoint(folder, "yolo11n", "segment"))
    assert "segment" in message
    assert "detect" in message


def test_a_teacher_with_more_classes_is_refused(detector: Path) -> None:
    assert "has 3 classes, the data has 2" in refusal(detector, names=NAMES[:2])


def test_a_teacher_with_other_classes_is_refused_and_the_first_is_named(detector: Path) -> None:
    message = refusal(detector, names=("dark", "red", "grey"))
    assert "other classes" in message
    assert "class 1 is 'light', that of the data 'red'" in message


def test_a_teacher_with_the_classes_in_another_order_is_refused(detector: Path) -> None:
    message = refusal(detector, names=("dark", "grey", "light"))
    assert "another order" in message
    assert "class 1 is 'light', that of the data 'grey'" in message


def test_a_teacher_of_other_image_channels_is_refused(detector: Path) -> None:
    assert "3 channels, the data has 1" in refusal(detector, channels=1)


@pytest.mark.parametrize("loss", ["localisation", "native"])
def test_losses_of_boxes_are_refused_for_a_classifier(folder: Path, loss: str) -> None:
    assert f"losses={loss}" in refusal(folder / "never-opened.pt", "response", loss, task="classify")


@pytest.mark.parametrize("task", ["pose", "obb"])
def test_tasks_that_cannot_be_distilled_are_refused(folder: Path, task: str) -> None:
    assert f"task={task}" in refusal(folder / "never-opened.pt", task=task)


def test_head_widths_are_those_of_the_maps_that_arrive(folder: Path) -> None:
    for version, task in (("yolov8n", "detect"), ("yolo26n", "segment"), ("yolo11n", "classify")):
        network = YOLO(checkpoint(folder, version, task)).model
        seen: list[Any] = []
        network.model[-1].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        network(torch.zeros(1, 3, 64, 64))
        maps = seen[0] if isinstance(seen[0], list) else [seen[0]]
        assert head_widths(network) == [level.shape[1] for level in maps]


def test_models_with_other_levels_are_refused(folder: Path, detector: Path) -> None:
    student, teacher = YOLO(detector).model, YOLO(checkpoint(folder, "yolov8n-p6", "detect")).model
    with pytest.raises(ArgumentError, match=r"teacher=big\.pt predicts at strides \[8, 16, 32, 64\]"):
        check_levels(student, teacher, "big.pt")
    check_levels(student, student, "big.pt")


def test_a_head_that_cannot_be_compared_is_refused(detector: Path) -> None:
    network = YOLO(detector).model
    network.model[-1] = torch.nn.Identity()
    with pytest.raises(ArgumentError, match="Identity"):
        check_levels(YOLO(detector).model, network, "t.pt")
