"""Narrow networks and their checkpoints, for tests that need a student and a teacher but no training."""

from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load

from tests.training.task_data import SUFFIXES

NAMES = ("dark", "light", "grey")


def model_yaml(folder: Path, version: str, task: str, *, width: float, names: tuple[str, ...] = NAMES) -> Path:
    """Return the yaml of a version's model for a task at a fraction of its width."""
    name = f"{version}{SUFFIXES[task]}.yaml"
    content = yaml_model_load(name) | {"scales": {"n": [0.33, width, 256]}, "scale": "n", "nc": len(names)}
    content.pop("yaml_file", None)
    file = folder / f"{width}-{len(names)}-{name}"
    file.write_text(yaml.safe_dump(content))
    return file


def checkpoint(
    folder: Path, version: str, task: str, *, width: float = 0.125, names: tuple[str, ...] = NAMES, **changes: Any
) -> Path:
    """Return the checkpoint of an untrained model with these class names, made once a folder.

    `changes` are set in its model yaml.
    """
    file = model_yaml(folder, version, task, width=width, names=names)
    if changes:
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    path = file.with_suffix(".pt")
    if path.exists():
        return path
    torch.manual_seed(0)
    network = YOLO(file, task=task)
    network.model.names = dict(enumerate(names))
    network.save(path)
    return path
