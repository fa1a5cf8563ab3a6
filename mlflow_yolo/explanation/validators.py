"""Validators that keep what an explanation needs, from the passes that Ultralytics makes anyway."""

from typing import Any

import numpy as np
import torch
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils import ops

from mlflow_yolo.attribution.class_maps import watch_classifier
from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.models.validators import (
    OrderedClassificationValidator,
    Recording,
    RecordingDetectionValidator,
    RecordingPoseValidator,
    RecordingSegmentationValidator,
)


class Framing:
    """Adds `frames` to a recording validator: where each image lies in its network input, in the order of `samples`."""

    frames: list[Frame]

    def init_metrics(self, model: Any) -> None:
        self.frames = []
        super().init_metrics(model)  # type: ignore[misc]

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        height, width = (int(side) for side in batch["img"].shape[2:])
        for shape, ((gain, _), (left, top)) in zip(batch["ori_shape"], batch["ratio_pad"], strict=True):
            # One gain for both sides, as Ultralytics scales boxes back.
            original = int(shape[0]), int(shape[1])
            self.frames.append(Frame(original, (height, width), (float(gain),) * 2, (float(top), float(left))))
        super().update_metrics(preds, batch)  # type: ignore[misc]


class FramingDetectionValidator(Framing, RecordingDetectionValidator):
    """`RecordingDetectionValidator` with `frames`."""


class FramingSegmentationValidator(Framing, RecordingSegmentationValidator):
    """`RecordingSegmentationValidator` with `frames`."""


class FramingPoseValidator(Framing, RecordingPoseValidator):
    """`RecordingPoseValidator` with `frames`."""


class FramingRotatedValidator(Framing, Recording, OBBValidator):  # type: ignore[misc]
    """`OBBValidator` with `frames` and `samples`: upright boxes around the rotated ones of both sides."""

    def _sample(self, pred: dict[str, Any], truth: dict[str, Any]) -> Any:
        upright = {**truth, "bboxes": _enclosing(truth["bboxes"])}
        return super()._sample({**pred, "bboxes": _enclosing(pred["bboxes"])}, upright)


class ExplainingClassificationValidator(OrderedClassificationValidator):
    """`ClassificationValidator` that keeps every probability, and the maps of the true and the predicted class.

    Attributes:
        true: (N,) int64.
        probabilities: (N, C) float32.
        maps: (N, 2, h, w) float32, in logits; see `attribution.class_maps`.
    """

    def init_metrics(self, model: Any) -> None:
        """Begin to watch the features of the network inside Ultralytics' wrapper."""
        super().init_metrics(model)
        self._kept: list[tuple[Any, Any, Any]] = []
        self._watching = watch_classifier(_network(model))
        self._features = self._watching.__enter__()

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Keep one batch."""
        super().update_metrics(preds, batch)
        true = batch["cls"].long()
        maps = self._features.maps(torch.stack((true, preds.argmax(1)), dim=1))
        self._kept.append((true.cpu(), preds.float().cpu(), maps.float().cpu()))

    def finalize_metrics(self) -> None:
        """Stop watching."""
        self._watching.__exit__(None, None, None)
        true, probabilities, maps = (torch.cat(parts).numpy() for parts in zip(*self._kept, strict=True))
        self.true, self.probabilities, self.maps = true.astype(np.int64), probabilities, maps
        super().finalize_metrics()


def _network(model: Any) -> Any:
    """Return the model inside Ultralytics' backend."""
    return model.model if getattr(model, "format", None) == "pt" else model


def _enclosing(boxes: Any) -> Any:
    """Return (N, 4) xyxy around rotated boxes (N, 5)."""
    if not len(boxes):
        return boxes[:, :4]
    corners = ops.xywhr2xyxyxyxy(boxes)
    return torch.cat((corners.amin(1), corners.amax(1)), dim=-1)


EXPLAINED: dict[str, type[BaseValidator]] = {
    "detect": FramingDetectionValidator,
    "segment": FramingSegmentationValidator,
    "pose": FramingPoseValidator,
    "obb": FramingRotatedValidator,
}
"""The validator of each task with boxes; it has `samples` and `frames`."""
