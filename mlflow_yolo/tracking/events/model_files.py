"""The checkpoint of a run as a directory that MLflow's registry takes: its exact bytes, and an `MLmodel` file."""

import importlib.metadata
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.variant import digest

FLAVOR = "yolo"
MODEL_PATH = "model"
TAG_REGISTERED_NAME = "mlflow_yolo.registered_model_name"

_VERSIONED = ("ultralytics", "torch", "mlflow-yolo")


def log_model(
    run: TrackedRun, checkpoint: Path, *, task: str, names: Mapping[int, str], imgsz: int | list[int] | None
) -> None:
    """Log `checkpoint` under `model/`, so that `mlflow.register_model(f"runs:/{run_id}/model", name)` works.

    Args:
        run: The open run.
        checkpoint: A `.pt` file; its bytes are uploaded as they are.
        task: `detect`, `segment`, `classify`, `pose` or `obb`.
        names: Class names by id.
        imgsz: Input size, pixels.

    Raises:
        OSError: The checkpoint cannot be read.
    """
    description = describe_model(checkpoint, run_id=run.run_id, task=task, names=names, imgsz=imgsz)
    run.log_file(checkpoint, MODEL_PATH)
    run.log_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), f"{MODEL_PATH}/MLmodel")


def describe_model(
    checkpoint: Path, *, run_id: str | None, task: str, names: Mapping[int, str], imgsz: int | list[int] | None
) -> dict[str, Any]:
    """Return the content of the `MLmodel` file of a checkpoint.

    Its flavor `yolo` says which file it is, by what digest it is recognised, and what it was trained for; the content
    is written by hand, because importing MLflow's model classes takes seconds at the end of a training.
    """
    size = checkpoint.stat().st_size
    return {
        "artifact_path": MODEL_PATH,
        "flavors": {
            FLAVOR: {
                "data": checkpoint.name,
                "sha256": digest(checkpoint),
                "size_bytes": size,
                "task": task,
                "names": {int(index): str(name) for index, name in names.items()},
                "imgsz": imgsz,
                "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
            }
        },
        "mlflow_version": importlib.metadata.version("mlflow"),
        "model_size_bytes": size,
        "model_uuid": uuid.uuid4().hex,
        **({"run_id": run_id} if run_id else {}),
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
