"""The distances that a distillation asks for, over all levels and, of an end-to-end head, both branches."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mlflow_yolo.compression.distillation import feature_losses, losses
from mlflow_yolo.compression.distillation.settings import Distillation


def output_distances(
    student: Any, teacher: Any, settings: Distillation, *, shares: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the distances of the outputs, by name of the loss.

    Args:
        student: Raw predictions of Ultralytics' network in training: logits (B, C) of a classifier, else `boxes` and
            `scores` by name, or these by branch.
        teacher: The same of the teacher.
        settings: The distillation.
        shares: How much each branch of an end-to-end head counts. A branch that the teacher does not have is left out;
            a teacher without branches teaches `one2many`.
    """
    if isinstance(student, Tensor):
        return _class_distances(student.float(), teacher.float(), settings)
    if "one2many" not in student:
        return _dense_distances(student, teacher.get("one2many", teacher), settings)
    if "one2many" not in teacher:
        return _dense_distances(student["one2many"], teacher, settings)
    total: dict[str, Tensor] = {}
    for branch, share in shares.items():
        for name, distance in _dense_distances(student[branch], teacher[branch], settings).items():
            total[name] = total.get(name, 0) + share * distance
    return total


def _class_distances(student: Tensor, teacher: Tensor, settings: Distillation) -> dict[str, Tensor]:
    """Return the distance of a classifier's scores."""
    if "response" not in settings.weights:
        return {}
    return {"response": losses.softmax_kl(student, teacher, temperature=settings.temperature("response"))}


def _dense_distances(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], settings: Distillation
) -> dict[str, Tensor]:
    """Return the distances of class scores and boxes of one branch."""
    weights = losses.anchor_weights(teacher["scores"].float())
    found = {}
    if "response" in settings.weights:
        found["response"] = losses.bernoulli_kl(
            student["scores"].float(),
            teacher["scores"].float(),
            temperature=settings.temperature("response"),
            weights=weights,
        )
    if "localisation" in settings.weights:
        found["localisation"] = _box_distance(student["boxes"].float(), teacher["boxes"].float(), weights, settings)
    return found


def _box_distance(student: Tensor, teacher: Tensor, weights: Tensor, settings: Distillation) -> Tensor:
    """Return the distance of distributions where both heads have the same bins, else that of the boxes."""
    if student.shape == teacher.shape and student.shape[1] > 4:
        temperature = settings.temperature("localisation")
        return losses.distribution_kl(student, teacher, temperature=temperature, weights=weights)
    return losses.box_distance(losses.edge_distances(student), losses.edge_distances(teacher), weights=weights)


def feature_distances(
    student: list[Tensor], projected: list[Tensor], teacher: list[Tensor], settings: Distillation
) -> dict[str, Tensor]:
    """Return the distances of the feature maps, by name of the loss: the mean over levels.

    Args:
        student: (B, C, H, W) maps, one a level.
        projected: The same with the teacher's channels.
        teacher: (B, C', H, W) maps.
        settings: The distillation.
    """

    def channel_wise_kl(own: Tensor, its: Tensor) -> Tensor:
        return feature_losses.channel_wise_kl(own, its, temperature=settings.temperature("cwd"))

    known: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[Tensor]]] = {
        "fitnets": (feature_losses.hint_distance, projected),
        "attention": (feature_losses.attention_distance, student),
        "cwd": (channel_wise_kl, projected),
        "rkd": (feature_losses.relational_distance, student),
    }
    return {
        name: sum(map(distance, maps, teacher)) / len(teacher)  # type: ignore[misc]
        for name, (distance, maps) in known.items()
        if name in settings.weights
    }
