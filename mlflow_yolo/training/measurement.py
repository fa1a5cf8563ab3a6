"""What a finished checkpoint scores on one split: Ultralytics' values, AP by object size, and every prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.tracking.events.final_values import FinalValues, read_final_values


@dataclass(frozen=True)
class Measurement:
    """One checkpoint on one split.

    Attributes:
        split: The split it was measured on.
        final: Ultralytics' own values.
        by_size: `AP-small`, `AP-medium`, `AP-large` (COCO areas in pixels of the original image), without absent sizes.
        samples: Ground truth and predictions per image; empty for classification and rotated boxes.
        labels: (N, 2) true and predicted class per image, for classification; else (0, 2).
        n_images: Images of the split.
    """

    split: str
    final: FinalValues
    by_size: dict[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    labels: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    n_images: int = 0

    @property
    def values(self) -> dict[str, float]:
        """Ultralytics' values and the AP by size, by name."""
        return {**self.final.values, **self.by_size}


def measure(
    weights: Path,
    dataset: Dataset,
    *,
    split: str,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    arguments: Mapping[str, Any] | None = None,
) -> Measurement:
    """Return what a checkpoint scores on one split, from a single pass of Ultralytics' own validator.

    Args:
        weights: A checkpoint.
        dataset: The data; `split` must be one of its splits.
        split: `train`, `val` or `test`.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        directory: Where Ultralytics may write.
        arguments: The training's Ultralytics arguments; those that decide how it validates count here too, so that all
            splits are measured as the training itself validated.

    Returns:
        The measurement. AP by size comes from `detection.evaluation`; Ultralytics' own AP differs from it by up to
        1.2e-3 by formula and, where boxes leave the image, by clipping.
    """
    from mlflow_yolo.models.validation import validate

    validator = validate(
        str(weights),
        dataset,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        directory=directory,
        arguments=arguments,
    )
    samples = list(getattr(validator, "samples", ()))
    labels = getattr(validator, "labels", np.zeros((0, 2), dtype=np.int64))
    return Measurement(
        split=split,
        final=read_final_values(validator.metrics),
        by_size=_by_size(samples, n_classes=len(dataset.names)),
        samples=samples,
        labels=labels,
        n_images=len(samples) or len(labels),
    )


def _by_size(samples: Sequence[Sample], *, n_classes: int) -> dict[str, float]:
    """Return AP50-95 by COCO object size, for the sizes that occur."""
    if not samples:
        return {}
    result = evaluate(samples, n_classes=n_classes)
    sizes = {"AP-small": result.ap_small, "AP-medium": result.ap_medium, "AP-large": result.ap_large}
    return {name: value for name, value in sizes.items() if value is not None}
