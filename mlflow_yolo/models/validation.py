"""One pass of Ultralytics' own validator over a split, with whatever the validator class keeps of it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.engine.validator import BaseValidator
from ultralytics.utils import LOGGER

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
    progress: Callable[[int, int], None] | None = None,
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
        progress: Told after every batch how many batches were done, and of how many; Ultralytics then says nothing.
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
    if progress is None:
        made(model=network.model)
        return made
    made.add_callback("on_val_batch_end", lambda done: progress(done.batch_i + 1, len(done.dataloader)))
    with _silent():
        made(model=network.model)
    return made


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Ultralytics' own messages and bars off the terminal, warnings excepted."""
    before = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
