"""Axis-aligned boxes: areas, overlap, conversion and clipping.

A box is a row (x1, y1, x2, y2) in pixels: left, top, right, bottom, with x2 >= x1 and y2 >= y1. No "+1": a box from 0
to 10 is 10 pixels wide, as in COCO and Ultralytics.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ShapeError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def areas(boxes: npt.NDArray[Any]) -> Floats:
    """Return the area of each box.

    Args:
        boxes: (N, 4) xyxy, pixels.

    Returns:
        (N,) square pixels, >= 0 (a box turned inside out has area 0); empty for no boxes.

    Raises:
        ShapeError: `boxes` is not (N, 4).
    """
    return _areas(_check(boxes))


def iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Return the intersection over union of every box of `a` with every box of `b`.

    Args:
        a: (N, 4) xyxy.
        b: (M, 4) xyxy, the same frame and unit as `a`.

    Returns:
        (N, M) in [0, 1]; 0 for two boxes without area; (0, M) or (N, 0) where one side is empty.

    Raises:
        ShapeError: `a` or `b` is not (n, 4).
    """
    return _overlap(_check(a)[:, None, :], _check(b)[None, :, :])


def paired_iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Return the intersection over union of box i of `a` with box i of `b`.

    Args:
        a: (N, 4) xyxy.
        b: (N, 4) xyxy, the same frame and unit as `a`.

    Returns:
        (N,) in [0, 1]; 0 for two boxes without area; empty for no boxes.

    Raises:
        ShapeError: The shapes differ or are not (N, 4).
    """
    first, second = _check(a), _check(b)
    if first.shape != second.shape:
        raise ShapeError(f"boxes of shape {first.shape} and {second.shape} are no pairs: pass as many of each.")
    return _overlap(first, second)


def xywhn_to_xyxy(boxes: npt.NDArray[Any], *, width: int, height: int) -> Floats:
    """Return boxes of a YOLO label file as pixels.

    Args:
        boxes: (N, 4) centre x, centre y, width, height, each a fraction of the image.
        width: Width of the image, pixels.
        height: Height of the image, pixels.

    Returns:
        (N, 4) xyxy, pixels, not clipped; (0, 4) for no boxes.

    Raises:
        ShapeError: `boxes` is not (N, 4).
    """
    centre, size = np.hsplit(_check(boxes), 2)
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return np.asarray(corners * np.array([width, height, width, height], dtype=np.float64))


def clip(boxes: npt.NDArray[Any], *, width: int, height: int) -> Floats:
    """Return the boxes with every corner moved into the image.

    Args:
        boxes: (N, 4) xyxy, pixels.
        width: Width of the image, pixels.
        height: Height of the image, pixels.

    Returns:
        (N, 4) xyxy with 0 <= x <= width and 0 <= y <= height; a box outside the image keeps no area.

    Raises:
        ShapeError: `boxes` is not (N, 4).
    """
    return np.clip(_check(boxes), 0.0, np.array([width, height, width, height], dtype=np.float64))


def _check(boxes: npt.NDArray[Any]) -> Floats:
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ShapeError(f"boxes have shape {array.shape}, expected (N, 4): pass np.zeros((0, 4)) for no boxes.")
    return array


def _areas(boxes: Floats) -> Floats:
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return np.asarray(size[..., 0] * size[..., 1])


def _overlap(a: Floats, b: Floats) -> Floats:
    size = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0.0)
    intersection = size[..., 0] * size[..., 1]
    union = _areas(a) + _areas(b) - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0))
