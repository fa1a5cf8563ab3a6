"""What is left of a model's predictions after suppression, each with the anchor it came from.

The suppression is Ultralytics' own, so the detections are those of `model.predict` and `model.val`; only that here the
anchors are kept, without which a detection could not be explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from ultralytics.utils import ops
from ultralytics.utils.nms import non_max_suppression

from mlflow_yolo.attribution.capture import Pass
from mlflow_yolo.attribution.outputs import DetectionOutputs
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.explanation.network import ExplainedModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_NO_TIME_LIMIT = 1e9
"""Seconds: what a busy machine had no time for would be missing otherwise."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of one image, the most confident first.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the input, not clipped; of rotated boxes those that enclose them.
        conf: (N,) confidences.
        classes: (N,) class ids.
        anchors: (N,) indices of the anchors; one anchor can hold several classes.
        polygons: (N, 4, 2) corners x, y of rotated boxes, pixels of the input; None for other tasks.
    """

    boxes: Floats
    conf: Floats
    classes: Ints
    anchors: Ints
    polygons: Floats | None = None

    def __len__(self) -> int:
        return len(self.boxes)


def suppressed(
    model: ExplainedModel,
    run: Pass,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    *,
    classes: Sequence[int] | None = None,
    multi_label: bool = False,
    agnostic: bool = False,
) -> list[Detections]:
    """Return the detections of every image of a pass; what the pass holds is not changed.

    Args:
        model: The model the pass was made with, set to the same branch (`predicting_with`).
        run: The pass, of which `outputs` and `decoded` are read.
        conf: Least confidence, exclusive.
        iou: Overlap above which the less confident of two boxes goes; not used by end-to-end models.
        max_det: Most detections an image.
        classes: Class ids to keep, None for all.
        multi_label: Whether a box may have several classes, as in `model.val`; `model.predict` keeps the best one.
        agnostic: Whether boxes of different classes suppress one another.

    Raises:
        ArgumentError: A classifier, a confidence or overlap outside 0 to 1, or outputs of another branch than the
            predictions'.
    """
    outputs = run.outputs
    if not isinstance(outputs, DetectionOutputs):
        raise ArgumentError("a classifier has no detections: explain the logit of a class.")
    if not (0 <= conf <= 1 and 0 <= iou <= 1):
        raise ArgumentError(f"conf={conf} and iou={iou} must lie in 0 to 1. Use for example conf=0.25 and iou=0.7.")
    if outputs.is_end_to_end != model.end_to_end:
        raise ArgumentError(
            "the outputs are of another branch than the predictions. Use predicting_with(model, branch)."
        )
    with torch.no_grad():
        decoded: Tensor = run.decoded[0] if isinstance(run.decoded, tuple) else run.decoded
        rows, kept = non_max_suppression(
            decoded.detach().float(),
            conf,
            iou,
            classes=None if classes is None else list(classes),
            agnostic=agnostic,
            multi_label=multi_label,
            max_det=max_det,
            nc=outputs.logits.shape[1],
            max_time_img=_NO_TIME_LIMIT,
            rotated=model.task == "obb",
            end2end=model.end_to_end,
            return_idxs=True,
        )
        if model.end_to_end:
            anchors = _ranked_anchors(model, outputs)
            kept = [anchors[image][index] for image, index in enumerate(kept)]
        return [_detections(row, index, model.task) for row, index in zip(rows, kept, strict=True)]


def _ranked_anchors(model: ExplainedModel, outputs: DetectionOutputs) -> Tensor:
    """Return the anchors of an end-to-end head's rows: (B, rows); the head's own ranking, done again."""
    scores = outputs.logits.detach().sigmoid().transpose(1, 2)
    ranked: Tensor = model.head.get_topk_index(scores, model.head.max_det)[2]
    return ranked


def _detections(rows: Tensor, anchors: Tensor, task: str) -> Detections:
    """Return rows (N, 6 or more) of box, confidence, class and extras in one form for all tasks."""
    polygons = None
    boxes = rows[:, :4]
    if task == "obb":
        corners = ops.xywhr2xyxyxyxy(torch.cat((rows[:, :4], rows[:, -1:]), dim=1)).reshape(-1, 4, 2)
        polygons = corners.cpu().numpy().astype(np.float64)
        boxes = torch.cat((corners.amin(1), corners.amax(1)), dim=1) if len(rows) else boxes
    return Detections(
        boxes=boxes.cpu().numpy().astype(np.float64),
        conf=rows[:, 4].cpu().numpy().astype(np.float64),
        classes=rows[:, 5].cpu().numpy().astype(np.int64),
        anchors=anchors.reshape(-1).cpu().numpy().astype(np.int64),
        polygons=polygons,
    )
