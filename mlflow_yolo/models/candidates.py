"""Every box and class that a detector's head gives a score, before suppression."""

from dataclasses import dataclass

import numpy as np
import torch
from ultralytics.utils import ops

from mlflow_yolo.detection.match_arrays import Values

MAX_NMS = 30_000
"""Candidates of an image, by score, that Ultralytics suppresses among."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of one image, by falling score.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the model's input.
        classes: (N,) class ids, as floats.
        scores: (N,).
        extra: (N, E) what else the head says of each: mask coefficients.
    """

    boxes: Values
    classes: Values
    scores: Values
    extra: Values


def read_candidates(prediction: torch.Tensor, *, conf: float, n_classes: int) -> Candidates:
    """Return the candidates of a head that leaves suppression to its caller, an anchor once for each of its classes.

    Args:
        prediction: (4 + C + E, A): centre and size of the box in pixels of the input, a probability per class, and
            further values.
        conf: Score that a candidate is above.
        n_classes: Number C of classes.

    Returns:
        At most `MAX_NMS`. Of equal scores the earlier anchor comes first, then the lower class: the order in which
        Ultralytics' suppression meets them.

    Source: `ultralytics.utils.nms.non_max_suppression` (8.4) with `multi_label`, as validation calls it.
    """
    possible = prediction[:, prediction[4 : 4 + n_classes].amax(0) > conf].T
    boxes, probabilities, extra = possible.split((4, n_classes, possible.shape[1] - 4 - n_classes), 1)
    anchors, classes = torch.where(probabilities > conf)
    scores = probabilities[anchors, classes]
    order = scores.argsort(descending=True, stable=True)[:MAX_NMS]
    anchors = anchors[order]
    return _as_arrays(ops.xywh2xyxy(boxes)[anchors], classes[order], scores[order], extra[anchors])


def read_final(rows: torch.Tensor, *, conf: float) -> Candidates:
    """Return the candidates of a head that suppresses by itself, in its order.

    Args:
        rows: (N, 6 + E): box xyxy in pixels of the input, score, class, and further values, by falling score.
        conf: Score that a candidate is above.
    """
    kept = rows[rows[:, 4] > conf]
    return _as_arrays(kept[:, :4], kept[:, 5], kept[:, 4], kept[:, 6:])


def _as_arrays(*tensors: torch.Tensor) -> Candidates:
    boxes, classes, scores, extra = (np.ascontiguousarray(one.float().cpu().numpy()) for one in tensors)
    return Candidates(boxes, classes, scores, extra)
