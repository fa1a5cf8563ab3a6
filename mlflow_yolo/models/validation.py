"""One pass of Ultralytics' own validator over a split, with whatever the validator class keeps of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.engine.validator import BaseValidator

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.models import checkpoint
from mlflow_yolo.models.validators import VALIDATORS

VALIDATION_ARGUMENTS = frozenset({"conf", "iou", "max_det", "classes", "single_cls", "agnostic_nms", "nms", "augment"})
"""Ultralytics' training arguments that also decide how it validates."""


def validate(
    weights: str,
    dataset: Dataset,
    *,
    split: str,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    arguments: Mapping[str, Any] | None = None,
    validator: type[BaseValidator] | None = None,
) -> Any:
    """Return the validator after it has gone through the split once.

    Args:
        weights: A located checkpoint.
        dataset: The data; `split` must be one of its splits.
        split: `train`, `val` or `test`.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        directory: Where Ultralytics may write.
        arguments: Further Ultralytics arguments; those of `VALIDATION_ARGUMENTS` count.
        validator: Its class, None for the recording one of the task.
    """
    network = checkpoint.load(weights, task=dataset.task)
    made = (validator or VALIDATORS[dataset.task])(
        args={
            **network.overrides,
            "data": str(dataset.yaml),
            "split": split,
            "imgsz": imgsz,
            "batch": batch,
            "device": device,
            **{name: value for name, value in (arguments or {}).items() if name in VALIDATION_ARGUMENTS},
            "plots": False,
            "rect": True,
            "verbose": False,
            "mode": "val",
            "save_dir": str(directory),
        }
    )
    made(model=network.model)
    return made
