"""Photographs in, log-chromaticity images out: what the files hold, to the last bit.

A log-ratio r of log(R/G), log(B/G) or their mean becomes v = 128 + 127 r / 2, clipped to 1 .. 255 (see
`mlflow_yolo.datasets.log_chromaticity`). `png` stores v rounded, 8 bits a channel. `tiff` stores 256 v + 128 rounded
down, 16 bits a channel: 256 times finer, and its high byte is v rounded. Ultralytics 8.4 keeps the high byte of 16-bit
images, so it trains on the same pixels from either; the low byte is for other readers. Colour TIFFs of 32-bit floats,
which it drops as corrupt (Pillow cannot open them), are not written.

OpenCV reads and writes: Pillow cuts 16-bit colour to 8 bits. It comes with Ultralytics.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mlflow_yolo.datasets.log_chromaticity import (
    LOG_RANGE,
    NEUTRAL,
    encode_log_ratios,
    linearize_srgb,
    log_ratios,
)
from mlflow_yolo.exceptions import DatasetError

FORMATS = {"png": ".png", "tiff": ".tiff"}
"""What can be written, and under which suffix."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def read_photograph(path: Path) -> Pixels:
    """Return an sRGB photograph, (H, W, 3) uint8 or uint16 in RGB order, turned as its EXIF orientation says.

    Raises:
        DatasetError: The file is no image of 8 or 16 bits that OpenCV can read.
    """
    data = np.fromfile(path, dtype=np.uint8)
    pixels: Any
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if len(data) else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DatasetError(f"{path} cannot be read as an image. Save it as JPEG, PNG or TIFF, or take it out.")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DatasetError(f"{path} holds {pixels.dtype}, not sRGB of 8 or 16 bits. Save it as 8- or 16-bit sRGB.")
    rgb: Pixels = np.ascontiguousarray(pixels[..., ::-1])
    return rgb


def is_colourless(photograph: Pixels) -> bool:
    """Return whether R = G = B everywhere: then the log-chromaticity image is one even grey."""
    return bool((photograph[..., :1] == photograph[..., 1:]).all())


def encode(photograph: Pixels, format: str) -> Pixels:
    """Return the log-chromaticity image, (H, W, 3) RGB order: uint8 for `png`, uint16 for `tiff`."""
    ratios = log_ratios(_linear_light(photograph))
    return encode_log_ratios(ratios) if format == "png" else encode_16_bit(ratios)


def encode_16_bit(ratios: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Return log-ratios (..., 2) as 16-bit (..., 3); `decode_16_bit` returns them, the high byte is the 8-bit image."""
    channels = np.concatenate([ratios, ratios.mean(axis=-1, keepdims=True)], axis=-1)
    value = NEUTRAL + 127 * np.clip(channels / LOG_RANGE, -1.0, 1.0)
    return np.floor(256 * value + 128).astype(np.uint16)


def decode_16_bit(image: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return the log-ratios (..., 2) of a 16-bit image (..., 3), to 6.2e-5 at worst; those beyond +-2 were clipped."""
    return ((image[..., :2] - 128.0) / 256 - NEUTRAL) * LOG_RANGE / 127


def write_image(path: Path, pixels: Pixels) -> None:
    """Write (H, W, 3) RGB pixels without loss, in the format of the suffix; its folder must exist."""
    _, data = cv2.imencode(path.suffix, pixels[..., ::-1])
    data.tofile(path)


def _linear_light(photograph: Pixels) -> NDArray[np.float64]:
    """Return `linearize_srgb(photograph)`, looked up in a table: a photograph repeats its few values many times."""
    eight = photograph.dtype == np.uint8
    table = linearize_srgb(np.arange(256, dtype=np.uint8) if eight else np.arange(65536, dtype=np.uint16))
    return table[photograph]
