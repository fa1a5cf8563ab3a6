"""A detector's raw output to boxes, scores and classes, as Ultralytics' predictor and validator make them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools, Ints
from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.runtime.nms import non_max_suppression
from mlflow_yolo.runtime.preprocess import Frame

Values = npt.NDArray[np.float32]

MAX_NMS = 30_000
"""Candidates beyond this many, by score, are dropped before suppression: Ultralytics' own."""


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in the frame of the model's input, by falling score.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the input.
        scores: (N,) confidences.
        classes: (N,) class ids.
        extra: (N, E) what else the model says of each: mask coefficients.
    """

    boxes: Values
    scores: Values
    classes: Ints
    extra: Values

    def at(self, rows: Ints | Bools) -> "Found":
        """Return those of the given indices, or where a mask is true."""
        return Found(self.boxes[rows], self.scores[rows], self.classes[rows], self.extra[rows])


def find(
    prediction: Values,
    thresholds: Values,
    *,
    iou: float,
    max_det: int,
    multi_label: bool = False,
    agnostic: bool = False,
) -> Found:
    """Return the detections of one image from a head that leaves suppression to its caller.

    Args:
        prediction: (4 + C + E, A) of A anchors: box as centre x, centre y, width, height in pixels of the input, a
            probability per class, and E further values.
        thresholds: (C,) a detection's score is above that of its class.
        iou: Largest overlap of two detections of one class.
        max_det: Largest number of detections.
        multi_label: Let an anchor be found once for each of its classes, as validation does; else its best class.
        agnostic: Let detections suppress each other whatever their class.

    Raises:
        ShapeError: The prediction has fewer rows than 4 + C.

    Source: `ultralytics.utils.nms.non_max_suppression` (8.4), except that it knows one threshold for all classes.
    """
    n_classes = len(thresholds)
    if prediction.ndim != 2 or len(prediction) < 4 + n_classes:
        raise ShapeError(f"the output {prediction.shape} has no 4 box values and {n_classes} classes: check the names.")
    candidates = _candidates(prediction, thresholds, multi_label=multi_label and n_classes > 1)
    if len(candidates.scores) > MAX_NMS:
        candidates = candidates.at(np.argsort(-candidates.scores, kind="stable")[:MAX_NMS])
    kept = non_max_suppression(
        candidates.boxes, candidates.scores, candidates.classes, iou=iou, max_det=max_det, agnostic=agnostic
    )
    return candidates.at(kept)


def read_final(prediction: Values, thresholds: Values, *, max_det: int) -> Found:
    """Return the detections of one image from a head that suppresses by itself (YOLO26, or exported with nms=True).

    Args:
        prediction: (N, 6 + E): box xyxy in pixels of the input, score, class and E further values, by falling score.
        thresholds: (C,) a detection's score is above that of its class.
        max_det: Largest number of detections.

    Raises:
        ShapeError: The prediction has fewer than 6 columns, or a class beyond C.
    """
    if prediction.ndim != 2 or prediction.shape[1] < 6:
        raise ShapeError(f"the output {prediction.shape} is no list of box, score and class: export the model again.")
    sure = prediction[prediction[:, 4] > thresholds.min(initial=1)]
    classes = sure[:, 5].astype(np.int64)
    if len(classes) and classes.max() >= len(thresholds):
        raise ShapeError(f"the output has class {classes.max()}, but there are {len(thresholds)} names: correct them.")
    rows = np.flatnonzero(sure[:, 4] > thresholds[classes])[:max_det]
    return Found(sure[rows, :4], sure[rows, 4], classes[rows], sure[rows, 6:])


def to_original(boxes: Values, frame: Frame, *, clip: bool = True) -> Values:
    """Return boxes (N, 4) xyxy of the model's input as pixels of the original image, moved into it with `clip`.

    Source: `ultralytics.utils.ops.scale_boxes` (8.4): each axis has its own gain, since each side was rounded.
    """
    gain = np.array([frame.inner[1] / frame.width, frame.inner[0] / frame.height] * 2, dtype=np.float32)
    scaled = (boxes - np.array([frame.left, frame.top] * 2, dtype=np.float32)) / gain
    if clip:
        limit = np.array([frame.width, frame.height] * 2, dtype=np.float32)
        scaled = np.clip(scaled, np.float32(0), limit)
    return np.asarray(scaled, dtype=np.float32)


def _candidates(prediction: Values, thresholds: Values, *, multi_label: bool) -> Found:
    """Return every box whose score is above its class's threshold, in the order of anchors, then of classes."""
    end = 4 + len(thresholds)
    possible = prediction[4:end].max(axis=0, initial=0) > thresholds.min(initial=1)
    rows = prediction[:, possible].T
    probabilities = rows[:, 4:end]
    if multi_label:
        anchors, classes = np.nonzero(probabilities > thresholds)
    else:
        best = probabilities.argmax(axis=1) if len(thresholds) else np.zeros(0, np.int64)
        anchors = np.flatnonzero(probabilities[np.arange(len(rows)), best] > thresholds[best])
        classes = best[anchors]
    scores = probabilities[anchors, classes]
    centre, half = rows[:, :2], rows[:, 2:4] / np.float32(2)
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return Found(boxes[anchors], np.ascontiguousarray(scores), classes.astype(np.int64), rows[anchors, end:])
