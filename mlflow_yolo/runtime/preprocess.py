"""Pixels to the model's input, as Ultralytics' predictor makes it for an export of fixed size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.runtime.session import Images

_RESAMPLING = {word: Image.Resampling[word.upper()] for word in ("nearest", "bilinear", "bicubic")}

PADDING = 114
"""Grey value around a letterboxed image: Ultralytics' own."""

_MOST_SIDES = 128
"""Sides of the square in its middle up to which an image is scaled as a whole, as Ultralytics does."""


@dataclass(frozen=True)
class Frame:
    """Where an image lies in the model's input.

    Attributes:
        height: Height of the original image, pixels.
        width: Width of the original image, pixels.
        inner: (height, width) of the image within the input, pixels.
        top: Pixels of padding above it.
        left: Pixels of padding left of it.
    """

    height: int
    width: int
    inner: tuple[int, int]
    top: int
    left: int


def place(height: int, width: int, imgsz: tuple[int, int]) -> Frame:
    """Return where an image comes to lie: as large as fits, its proportions kept, in the middle.

    Source: `ultralytics.data.augment.LetterBox.get_params` (8.4), with its rounding of halves.
    """
    gain = min(imgsz[0] / height, imgsz[1] / width)
    inner = max(round(height * gain), 1), max(round(width * gain), 1)
    top, left = (round((outer - side) / 2 - 0.1) for outer, side in zip(imgsz, inner, strict=True))
    return Frame(height, width, inner, top, left)


def letterbox(image: Pixels, imgsz: tuple[int, int]) -> tuple[Pixels, Frame]:
    """Return an image scaled into `imgsz` on grey, and where it lies there.

    Args:
        image: (H, W, C).
        imgsz: (height, width) of the model's input, pixels.

    Returns:
        (height, width, C), and its frame.
    """
    frame = place(image.shape[0], image.shape[1], imgsz)
    if image.shape[:2] != frame.inner:
        image = np.asarray(cv2.resize(image, frame.inner[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        image = image[..., None] if image.ndim == 2 else image
    if frame.inner == imgsz:
        return image, frame
    canvas = np.full((*imgsz, image.shape[2]), PADDING, dtype=np.uint8)
    canvas[frame.top : frame.top + frame.inner[0], frame.left : frame.left + frame.inner[1]] = image
    return canvas, frame


def resize_and_crop(image: Pixels, size: tuple[int, int], *, interpolation: str = "bilinear") -> Pixels:
    """Return the middle of an image as a classifier sees it.

    Args:
        image: (H, W, 3).
        size: (height, width) of the model's input. For a square one the image's shorter side becomes that long and
            what stands over is cut off; else the image is stretched.
        interpolation: `nearest`, `bilinear` or `bicubic`.

    Returns:
        (height, width, 3).

    Source: `ultralytics.data.augment.classify_transforms` (8.4): torchvision's Resize and CenterCrop of a PIL image.
    """
    height, width = size
    scaled = size
    if height == width:
        image = _middle(image)
        shorter, longer = sorted(image.shape[:2])
        long_side = int(height * longer / shorter)
        scaled = (height, long_side) if image.shape[0] <= image.shape[1] else (long_side, height)
    if scaled != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize(scaled[::-1], _RESAMPLING[interpolation]))
    top, left = (round((outer - inner) / 2) for outer, inner in zip(scaled, size, strict=True))
    return image[top : top + height, left : left + width]


def _middle(image: Pixels) -> Pixels:
    """Return the part of an image that can come into its middle square: a thread of pixels would be scaled up whole.

    One pixel by 65,535 became 224 by 15 million, 10 GB.
    """
    most = _MOST_SIDES * min(image.shape[:2])
    spare = [max(side - most, 0) // 2 for side in image.shape[:2]]
    return image[spare[0] : image.shape[0] - spare[0], spare[1] : image.shape[1] - spare[1]]


def to_batch(images: Sequence[Pixels]) -> Images:
    """Return images of one size as the model's input.

    Args:
        images: Each (H, W, C), 8 bits; three channels are BGR.

    Returns:
        (N, C, H, W) in [0, 1]; three channels are RGB.
    """
    height, width, channels = images[0].shape
    batch = np.empty((len(images), channels, height, width), dtype=np.float32)
    for planes, image in zip(batch, images, strict=True):
        split = cv2.split(image)
        for plane, channel in zip(planes, split[::-1] if channels == 3 else split, strict=True):
            plane[...] = channel
    batch /= np.float32(255)
    return batch


def normalise(batch: Images, transform: Mapping[str, Any]) -> Images:
    """Return a classifier's input with each channel's mean taken off and divided by its standard deviation.

    Args:
        batch: (N, 3, H, W) in [0, 1]; it is changed.
        transform: `mean` and `std` by channel, in RGB; without them nothing is changed.
    """
    mean, std = (np.asarray(transform.get(name, default), np.float32) for name, default in (("mean", 0), ("std", 1)))
    if mean.any() or (std != 1).any():
        batch -= mean.reshape(-1, 1, 1)
        batch /= std.reshape(-1, 1, 1)
    return batch
