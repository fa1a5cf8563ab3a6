"""Ultralytics validators that also keep every prediction, in pixels of the original image.

The predictions are those that Ultralytics' own metrics are computed from: no further forward pass is made.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data import build_dataloader
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import ops

from mlflow_yolo.detection.samples import Sample


class Recording:
    """Adds `samples` to a detection validator: one `Sample` per image, in the order of validation."""

    samples: list[Sample]

    def init_metrics(self, model: Any) -> None:
        self.samples = []
        super().init_metrics(model)  # type: ignore[misc]

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        for index, pred in enumerate(preds):
            self.samples.append(self._sample(pred, self._prepare_batch(index, batch)))  # type: ignore[attr-defined]
        super().update_metrics(preds, batch)  # type: ignore[misc]

    def _sample(self, pred: dict[str, Any], truth: dict[str, Any]) -> Sample:
        """Return one image's ground truth and predictions."""
        height, width = truth["ori_shape"]
        single = bool(self.args.single_cls)  # type: ignore[attr-defined]
        classes = pred["cls"].cpu().numpy().astype(np.int64)
        return Sample(
            image=os.path.relpath(truth["im_file"], self.data["path"]),  # type: ignore[attr-defined]
            height=int(height),
            width=int(width),
            gt_boxes=_original(truth["bboxes"], truth),
            gt_classes=truth["cls"].cpu().numpy().astype(np.int64),
            boxes=_original(pred["bboxes"], truth),
            scores=pred["conf"].cpu().numpy().astype(np.float64),
            classes=np.zeros_like(classes) if single else classes,
        )


def _original(boxes: Any, truth: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return boxes (N, 4) xyxy of the letterboxed input as pixels of the original image."""
    scaled = ops.scale_boxes(truth["imgsz"], boxes.clone().double(), truth["ori_shape"], ratio_pad=truth["ratio_pad"])
    return np.asarray(scaled.cpu().numpy(), dtype=np.float64)


class RecordingDetectionValidator(Recording, DetectionValidator):  # type: ignore[misc]
    """`DetectionValidator` with `samples`."""


class RecordingSegmentationValidator(Recording, SegmentationValidator):  # type: ignore[misc]
    """`SegmentationValidator` with the boxes of its detections as `samples`."""


class RecordingPoseValidator(Recording, PoseValidator):  # type: ignore[misc]
    """`PoseValidator` with the boxes of its detections as `samples`."""


class OrderedClassificationValidator(ClassificationValidator):  # type: ignore[misc]
    """`ClassificationValidator` that goes through the images in the dataset's order.

    Ultralytics shuffles them by torch's seed: what is kept could be neither named nor paired between models.
    """

    def get_dataloader(self, dataset_path: Path | str, batch_size: int) -> Any:
        """Return Ultralytics' loader, unshuffled."""
        dataset = super().get_dataloader(dataset_path, batch_size).dataset
        return build_dataloader(dataset, batch_size, self.args.workers, shuffle=False, rank=-1, device=self.device)


class RecordingClassificationValidator(OrderedClassificationValidator):
    """`ClassificationValidator` with `labels`: (N, 2) true and most likely class per image, in the split's order."""

    labels: np.ndarray[Any, np.dtype[np.int64]]

    def finalize_metrics(self) -> None:
        true = np.concatenate([target.numpy() for target in self.targets])
        predicted = np.concatenate([ranked[:, 0].numpy() for ranked in self.pred])
        self.labels = np.stack([true, predicted], axis=1).astype(np.int64)
        super().finalize_metrics()


VALIDATORS: dict[str, type[BaseValidator]] = {
    "detect": RecordingDetectionValidator,
    "segment": RecordingSegmentationValidator,
    "pose": RecordingPoseValidator,
    "obb": OBBValidator,
    "classify": RecordingClassificationValidator,
}
"""The validator of each task; rotated boxes have no axis-aligned samples, so obb keeps Ultralytics' own."""
