"""The shipped checkpoint: a small YOLO11 detector, pretrained on the embedded `digits`.

Users write `model=digits` (or `digits.pt`). `python -m mlflow_yolo.training.pretrain --output digits.pt` makes it
again; digits.json beside it records how it was made, its sha256 and its scores.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import CheckpointError


def path() -> Path:
    """Return the file of the shipped checkpoint.

    Raises:
        CheckpointError: The installation lacks it.
    """
    file = Path(str(resources.files(__name__).joinpath("digits.pt")))
    if not file.is_file():
        raise CheckpointError(f"The shipped checkpoint is missing: {file}. Install mlflow-yolo again.")
    return file


def record() -> Mapping[str, Any]:
    """Return digits.json: sha256, size, command, versions, parameters, classes and test scores."""
    content = resources.files(__name__).joinpath("digits.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(content)
    return parsed


def verify(file: Path | None = None) -> Path:
    """Return the checkpoint's path after comparing its bytes with the recorded sha256.

    Args:
        file: Another copy to compare; None means the shipped one.

    Raises:
        CheckpointError: It is missing, or its bytes are not those that were recorded.
    """
    checked = file if file is not None else path()
    found, wanted = hashlib.sha256(checked.read_bytes()).hexdigest(), record()["sha256"]
    if found != wanted:
        raise CheckpointError(f"{checked} has sha256 {found}, not {wanted}. Install mlflow-yolo again.")
    return checked
