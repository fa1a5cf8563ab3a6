"""One pass over a split: every prediction, and each picture exactly as the model saw it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.models.validation import validate

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as the model saw it.

    Attributes:
        input: (C, h, w) uint8, the letterboxed network input.
        frame: Where the image lies in it.
        polygons: Outline of every labelled object, (K, 2) pixels of the image; None where only boxes are labelled.
    """

    input: Tensor
    frame: Frame
    polygons: tuple[Floats, ...] | None

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """The network input as (h, w, 3) uint8; of one channel grey, of more than three the first three."""
        channels = self.input if self.input.shape[0] >= 3 else self.input[:1].expand(3, -1, -1)
        return np.ascontiguousarray(channels[:3].permute(1, 2, 0).numpy())


@dataclass(frozen=True, eq=False)
class DetectedSplit:
    """What a detector found in a split.

    Attributes:
        name: `train`, `val` or `test`.
        samples: Ground truth and detections of every image, in pixels of the original images.
        metrics: Ultralytics' metrics object.
        images: Ultralytics' dataset, in the order of `samples`.
    """

    name: str
    samples: tuple[Sample, ...]
    metrics: Any
    images: Any

    def input(self, index: int) -> Tensor:
        """Return one network input: (C, h, w) uint8."""
        return self.picture(index).input

    def picture(self, index: int) -> Picture:
        """Return one image exactly as it was validated."""
        item = self.images[index]
        (gain, _), (left, top) = item["ratio_pad"]
        height, width = (int(side) for side in item["img"].shape[-2:])
        original = (int(item["ori_shape"][0]), int(item["ori_shape"][1]))
        frame = Frame(original, (height, width), (float(gain), float(gain)), (float(top), float(left)))
        return Picture(item["img"], frame, self._polygons(index, original))

    def _polygons(self, index: int, size: tuple[int, int]) -> tuple[Floats, ...] | None:
        segments = self.images.labels[index].get("segments", ())
        if not len(segments) or len(segments) != len(self.samples[index].gt_boxes):
            return None
        height, width = size
        return tuple(np.asarray(segment, dtype=np.float64) * (width, height) for segment in segments)


def detect_split(
    weights: str,
    dataset: Dataset,
    *,
    split: str,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    progress: Callable[[int, int], None],
    arguments: Mapping[str, Any] | None = None,
) -> DetectedSplit:
    """Return what a checkpoint finds in a split, from one pass of Ultralytics' own validator.

    Args:
        weights: A located checkpoint of a detector.
        dataset: The data.
        split: One of its splits.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        directory: Where Ultralytics may write.
        progress: Told after every batch how many were done, and of how many.
        arguments: Further Ultralytics arguments for the validation.
    """
    from mlflow_yolo.explanation.validators import EXPLAINED

    validator = validate(
        weights,
        dataset,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        directory=directory,
        arguments=arguments,
        validator=EXPLAINED[dataset.task],
        progress=progress,
    )
    return DetectedSplit(split, tuple(validator.samples), validator.metrics, validator.dataloader.dataset)


@dataclass(frozen=True, eq=False)
class ClassifiedSplit:
    """What a classifier made of a split.

    Attributes:
        name: `train`, `val` or `test`.
        files: The images.
        true: (N,) their classes.
        probabilities: (N, C) float32.
        maps: (N, 2, h, w) float32, how much every place adds to the logit of the true and of the predicted class.
        metrics: Ultralytics' metrics object.
        images: Ultralytics' dataset, in the same order.
    """

    name: str
    files: tuple[Path, ...]
    true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    metrics: Any
    images: Any

    def input(self, index: int) -> Tensor:
        """Return one network input: (C, h, w) float32, transformed exactly as it was validated."""
        image: Tensor = self.images[index]["img"]
        return image

    def rgb(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the part of an image that the model saw: (h, w, 3) uint8."""
        image = (self.input(index).clamp(0, 1) * 255).round().to(torch.uint8)
        channels = image if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
        return np.ascontiguousarray(channels[:3].permute(1, 2, 0).numpy())


def classify_split(
    weights: str,
    dataset: Dataset,
    *,
    split: str,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    progress: Callable[[int, int], None],
) -> ClassifiedSplit:
    """Return what a classifier makes of a split, and the maps of every image, from one pass without any gradient."""
    from mlflow_yolo.explanation.validators import ExplainingClassificationValidator

    validator = validate(
        weights,
        dataset,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        directory=directory,
        validator=ExplainingClassificationValidator,
        progress=progress,
    )
    images = validator.dataloader.dataset
    return ClassifiedSplit(
        name=split,
        files=tuple(Path(sample[0]) for sample in images.samples),
        true=validator.true,
        probabilities=validator.probabilities,
        maps=validator.maps,
        metrics=validator.metrics,
        images=images,
    )
