"""One pass over a split: every prediction, and each picture exactly as the model saw it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.attribution.masks import box_mask, polygon_mask
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.models.validation import validate

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DetectedSplit:
    """What a detector found in a split.

    Attributes:
        name: `train`, `val` or `test`.
        samples: Ground truth and detections of every image, in pixels of the original images.
        frames: Where each image lies in its network input.
        images: Ultralytics' dataset, in the order of `samples`.
    """

    name: str
    samples: tuple[Sample, ...]
    frames: tuple[Frame, ...]
    images: Any

    def input(self, index: int) -> Tensor:
        """Return one network input exactly as it was validated: (C, h, w) uint8."""
        image: Tensor = self.images[index]["img"]
        return image

    def rgb(self, index: int) -> Pixels:
        """Return one network input as a picture: (h, w, 3) uint8."""
        return _rgb(self.input(index))

    def polygons(self, index: int) -> tuple[Floats, ...] | None:
        """Return the outline of every labelled object, (K, 2) pixels of the image; None where boxes are labelled."""
        label, sample = self.images.labels[index], self.samples[index]
        segments = label.get("segments", ())
        if not len(segments) or len(segments) != len(sample.gt_boxes):
            return None
        outlines = [np.asarray(segment, dtype=np.float64) * (sample.width, sample.height) for segment in segments]
        # Ultralytics sorts objects by their area where it draws their masks over each other.
        bounds = np.array([[*outline.min(0), *outline.max(0)] for outline in outlines])
        apart = np.abs(sample.gt_boxes[:, None] - bounds).sum(2)
        apart += (sample.gt_classes[:, None] != np.ravel(label["cls"])) * (1 + apart.max())
        return tuple(outlines[i] for i in linear_sum_assignment(apart)[1])

    def mask(self, index: int, rows: Sequence[int], grid: tuple[int, int]) -> Floats:
        """Return the area that objects cover: their outlines where labelled, else their boxes.

        Args:
            index: The image.
            rows: Its objects, as in its sample.
            grid: (h, w) of a map that covers exactly the image.

        Returns:
            (h, w) in [0, 1], the covered share of each cell.
        """
        sample, polygons = self.samples[index], self.polygons(index)
        size = (sample.height, sample.width)
        if polygons is not None:
            return polygon_mask([polygons[row] for row in rows], size=size, grid=grid)
        return box_mask(sample.gt_boxes[list(rows)], size=size, grid=grid)


def detect_split(
    weights: str, dataset: Dataset, *, split: str, progress: Callable[[int, int], None], **pass_: Any
) -> DetectedSplit:
    """Return what a checkpoint finds in a split, from one pass of Ultralytics' own validator.

    Args:
        weights: A located checkpoint of a detector.
        dataset: The data.
        split: One of its splits.
        progress: Told after every batch how many were done, and of how many.
        pass_: Input size, batch, device and directory, see `models.validation.validate`.
    """
    from mlflow_yolo.explanation.validators import EXPLAINED

    done = validate(weights, dataset, split=split, validator=EXPLAINED[dataset.task], progress=progress, **pass_)
    return DetectedSplit(split, tuple(done.samples), tuple(done.frames), done.dataloader.dataset)


@dataclass(frozen=True, eq=False)
class ClassifiedSplit:
    """What a classifier made of a split.

    Attributes:
        name: `train`, `val` or `test`.
        files: The images.
        true: (N,) their classes.
        probabilities: (N, C) float32.
        maps: (N, 2, h, w) float32, how much every place adds to the logit of the true and of the predicted class.
        images: Ultralytics' dataset, in the same order.
    """

    name: str
    files: tuple[Path, ...]
    true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    images: Any

    def input(self, index: int) -> Tensor:
        """Return one network input: (C, h, w) float32, transformed exactly as it was validated."""
        image: Tensor = self.images[index]["img"]
        return image

    def rgb(self, index: int) -> Pixels:
        """Return the part of an image that the model saw: (h, w, 3) uint8."""
        return _rgb((self.input(index).clamp(0, 1) * 255).round().to(torch.uint8))


def classify_split(
    weights: str, dataset: Dataset, *, split: str, progress: Callable[[int, int], None], **pass_: Any
) -> ClassifiedSplit:
    """Return what a classifier makes of a split, and the maps of every image, from one pass without any gradient.

    Args:
        weights: A located checkpoint of a classifier.
        dataset: The data.
        split: One of its splits.
        progress: Told after every batch how many were done, and of how many.
        pass_: Input size, batch, device and directory, see `models.validation.validate`.
    """
    from mlflow_yolo.explanation.validators import ExplainingClassificationValidator

    done = validate(
        weights, dataset, split=split, validator=ExplainingClassificationValidator, progress=progress, **pass_
    )
    images = done.dataloader.dataset
    files = tuple(Path(sample[0]) for sample in images.samples)
    return ClassifiedSplit(split, files, done.true, done.probabilities, done.maps, images)


def _rgb(image: Tensor) -> Pixels:
    """Return (C, h, w) uint8 as (h, w, 3): of one or two channels the first as grey, of more the first three."""
    channels = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    return np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
