"""Outlines of instance masks, in pixels of the original image."""

import cv2
import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools, Floats
from mlflow_yolo.runtime.preprocess import place

_CORNERS = 3


def mask_outlines(masks: Bools, size: tuple[int, int]) -> list[list[Floats]]:
    """Return the outlines of each mask's parts.

    Args:
        masks: (N, H, W), as `Detections` has them: in the frame of the letterboxed input, or of the original image.
        size: (height, width) of the original image, pixels.

    Returns:
        For each mask a list of (K, 2) xy corners through the centres of its outermost pixels, pixels of the original
        image, the largest part first; empty where no part has three corners. Holes are left out.

    Source: `ultralytics.engine.results.Masks.xy` (8.4), which joins the parts.
    """
    if not len(masks):
        return []
    height, width = masks.shape[1:]
    frame, gain = place(*size, (height, width)), min(height / size[0], width / size[1])
    offset = np.array([frame.left, frame.top])
    return [[np.clip((ring - offset) / gain, 0, size[::-1]) for ring in _rings(mask)] for mask in masks]


def _rings(mask: Bools) -> list[Floats]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rings: list[npt.NDArray[np.float64]] = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in found]
    return sorted((ring for ring in rings if len(ring) >= _CORNERS), key=_area, reverse=True)


def _area(ring: Floats) -> float:
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
