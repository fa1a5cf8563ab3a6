"""The teacher's network, checked against what the student is trained for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics.nn.modules import Classify, Detect

from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models import checkpoint

TASKS = ("detect", "segment", "classify")
"""Tasks whose outputs and features can be compared."""


def open_teacher(
    settings: Distillation, *, task: str, names: Mapping[int, str] | Sequence[str], channels: int = 3
) -> Any:
    """Return the teacher's network: in evaluation mode, without gradients, on the CPU.

    Args:
        settings: The distillation.
        task: Task of the student.
        names: Class names of the student's data, in their order.
        channels: Channels of the student's images.

    Raises:
        ArgumentError: The file is missing, is no trained checkpoint or may not be loaded; the teacher has another task,
            other classes, another order of them or other image channels; or a loss does not exist for the task.
    """
    check_task(settings, task)
    network: Any = checkpoint.load(locate_teacher(settings)).model
    classes = list(names.values()) if isinstance(names, Mapping) else list(names)
    if difference := _difference(network, task=task, names=classes, channels=channels):
        raise ArgumentError(f"teacher={settings.teacher} {difference}. Use a teacher trained on the student's data.")
    return network.eval().requires_grad_(False)


def locate_teacher(settings: Distillation) -> str:
    """Return the teacher's file, scanned.

    Raises:
        ArgumentError: It does not exist, is no trained checkpoint or may not be loaded.
    """
    teacher = settings.teacher
    if Path(teacher).suffix in (".yaml", ".yml"):
        raise ArgumentError(f"teacher={teacher} is untrained and has nothing to teach. Pass a .pt checkpoint.")
    try:
        return checkpoint.read_model(teacher, trust=settings.trust).source
    except CheckpointError as error:
        raise ArgumentError(str(error).replace("model=", "teacher=", 1)) from error


def check_task(settings: Distillation, task: str) -> None:
    """Raise ArgumentError for a task that cannot be distilled, or not with these losses."""
    if task not in TASKS:
        raise ArgumentError(f"task={task} cannot be distilled. Use a model for {', '.join(TASKS)}.")
    for loss in ("localisation", "native"):
        if task == "classify" and loss in settings.weights:
            raise ArgumentError(
                f"losses={loss} needs boxes, and task=classify has none. Use response, or fitnets to rkd."
            )


def check_levels(student: Any, teacher: Any, name: str) -> None:
    """Check that the outputs of student and teacher stand for the same places in the image.

    Args:
        student: Its network.
        teacher: Its network.
        name: What the user called the teacher.

    Raises:
        ArgumentError: A head that is neither YOLO's detector (v8, 11, 26) nor its classifier, or other strides.
    """
    for network in (student, teacher):
        head = network.model[-1]
        if not isinstance(head, Detect | Classify) or getattr(head, "cv2", head) is None:
            kind = type(head).__name__
            raise ArgumentError(
                f"teacher={name} and the student cannot be compared: a head is {kind}. Use YOLOv8, 11 or 26."
            )
    strides = [[int(stride) for stride in network.stride] for network in (student, teacher)]
    if strides[0] != strides[1]:
        raise ArgumentError(
            f"teacher={name} predicts at strides {strides[1]}, the student at {strides[0]}. Use the same levels."
        )


def _difference(network: Any, *, task: str, names: list[str], channels: int) -> str:
    """Return how the teacher differs from what the student is trained for, empty where it does not."""
    its = list(network.names.values())
    its_channels = network.yaml.get("channels", 3)
    if network.task != task:
        return f"is a model for {network.task}, the student one for {task}"
    if len(its) != len(names):
        return f"has {len(its)} classes, the data has {len(names)}"
    if its != names:
        index = next(i for i, (a, b) in enumerate(zip(its, names, strict=True)) if a != b)
        order = "has the same classes in another order" if sorted(its) == sorted(names) else "has other classes"
        return f"{order}: its class {index} is {its[index]!r}, that of the data {names[index]!r}"
    if its_channels != channels:
        return f"takes images of {its_channels} channels, the data has {channels}"
    return ""
