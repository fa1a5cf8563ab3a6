"""Instance masks from a segmentation model's prototypes and coefficients."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools
from mlflow_yolo.runtime.preprocess import place

Values = npt.NDArray[np.float32]


def input_masks(prototypes: Values, coefficients: Values, boxes: Values, shape: tuple[int, int]) -> Bools:
    """Return masks in the frame of the model's input.

    Args:
        prototypes: (K, h, w) of one image.
        coefficients: (N, K) of its detections.
        boxes: (N, 4) xyxy, pixels of the model's input; a mask ends at its box.
        shape: (height, width) of the model's input.

    Returns:
        (N, height, width).

    Source: `ultralytics.utils.ops.process_mask` with upsample=True (8.4).
    """
    logits = _logits(prototypes, coefficients)
    masks = np.zeros((len(logits), *shape), dtype=np.bool_)
    for mask, logit, box in zip(masks, logits, boxes, strict=True):
        _fill(mask, _resize(logit, shape), box)
    return masks


def original_masks(prototypes: Values, coefficients: Values, boxes: Values, shape: tuple[int, int]) -> Bools:
    """Return masks in the frame of the original image, sampled there directly.

    Args:
        prototypes: (K, h, w) of one image, a quarter of the model's input.
        coefficients: (N, K) of its detections.
        boxes: (N, 4) xyxy, pixels of the original image; a mask ends at its box.
        shape: (height, width) of the original image.

    Returns:
        (N, height, width).

    Source: `ultralytics.utils.ops.process_mask_native` (8.4): prototypes are enlarged so far that the padding of the
    letterbox ends on a whole pixel, the padding is cut off, and the rest is scaled to the image.
    """
    _, height, width = prototypes.shape
    frame = place(shape[0], shape[1], (4 * height, 4 * width))
    padding = (4 * height - frame.inner[0]) | (4 * width - frame.inner[1])
    factor = 4 // math.gcd(4, padding | padding // 2)
    inner = place(shape[0], shape[1], (factor * height, factor * width))
    rows = slice(inner.top, inner.top + inner.inner[0])
    columns = slice(inner.left, inner.left + inner.inner[1])
    logits = _logits(prototypes, coefficients)
    masks = np.zeros((len(logits), *shape), dtype=np.bool_)
    for mask, logit, box in zip(masks, logits, boxes, strict=True):
        enlarged = _resize(logit, (factor * height, factor * width))
        # As in the source, nothing is cut off where the enlarged prototypes have the image's size already.
        whole = enlarged.shape == shape
        _fill(mask, enlarged if whole else _resize(enlarged[rows, columns], shape), box)
    return masks


def _logits(prototypes: Values, coefficients: Values) -> Values:
    """Return (N, h, w): each detection's sum of prototypes; above 0 is object."""
    n_prototypes, height, width = prototypes.shape
    return np.asarray((coefficients @ prototypes.reshape(n_prototypes, -1)).reshape(-1, height, width), np.float32)


def _resize(values: Values, shape: tuple[int, int]) -> Values:
    """Return (height, width) by bilinear interpolation between pixel centres."""
    if values.shape == shape:
        return values
    return np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _fill(mask: Bools, logit: Values, box: Values) -> None:
    """Set what of `mask` is object: where the logit is above 0 and the pixel lies within the box."""
    left, top, right, bottom = (math.ceil(max(side, 0)) if math.isfinite(side) else 0 for side in box.tolist())
    mask[top:bottom, left:right] = logit[top:bottom, left:right] > 0
