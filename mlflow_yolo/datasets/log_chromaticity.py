"""Log-chromaticity: colour images in which shading and neutral shadows vanish.

A pixel is illumination times reflectance, channel by channel. Where the illumination changes only in strength, all
three channels are scaled by one factor, which cancels in the ratios

    a = log(R / G)        b = log(B / G)        (linear light, natural logarithm)

A shadow under blue sky also changes the illumination's colour: it moves every surface of the scene by the same small
vector in the (a, b) plane, because the illumination's own log-ratios are added to those of the surface.

Source: G. D. Finlayson, S. D. Hordley, C. Lu, M. S. Drew, "On the removal of shadows from images", IEEE TPAMI 28(1),
2006, section 2, equations 4 to 6 (band ratios; the scaling to 8 bit is ours).
"""

import numpy as np
from numpy.typing import NDArray

from mlflow_yolo.exceptions import ShapeError

EPSILON = 0.002
"""Added to each linear channel (1 is white) before the logarithm, so that black is grey and its noise stays small.
About half the 8-bit step of an sRGB value of 40; 0 gives exact invariance to shading."""

LOG_RANGE = 2.0
"""A log-ratio of plus or minus this becomes 255 or 1 in the 8-bit image; 0 (grey) is 128. e^2 is a ratio of 7.4."""

NEUTRAL = 128


def linearize_srgb(image: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return linear light in [0, 1] of an sRGB image of any shape, uint8 or uint16.

    Raises:
        ShapeError: The image has another type.

    Source: IEC 61966-2-1.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ShapeError(f"image is {image.dtype}, not uint8 or uint16. Convert it first.")
    value = image / np.float64(np.iinfo(image.dtype).max)
    linear: NDArray[np.float64] = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear


def encode_srgb(linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return linear light as 8-bit sRGB, clipped to [0, 1] and rounded; any shape.

    Source: IEC 61966-2-1.
    """
    value = np.clip(linear, 0.0, 1.0)
    encoded: NDArray[np.float64] = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def log_ratios(linear: NDArray[np.float64], *, epsilon: float = EPSILON) -> NDArray[np.float64]:
    """Return (..., 2): log((R + epsilon) / (G + epsilon)) and log((B + epsilon) / (G + epsilon)).

    Args:
        linear: (..., 3) linear RGB, >= 0.
        epsilon: With 0, the result does not change when all channels are multiplied by one factor.

    Raises:
        ShapeError: The last axis is not RGB.
    """
    if linear.shape[-1:] != (3,):
        raise ShapeError(f"linear is {linear.shape}, not (..., 3). Give an RGB image.")
    logs = np.log(linear + epsilon)
    ratios: NDArray[np.float64] = logs[..., [0, 2]] - logs[..., [1]]
    return ratios


def encode_log_ratios(ratios: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return log-ratios (..., 2) as 8-bit (..., 3): log(R/G), log(B/G) and their mean, 128 + 127 * ratio / LOG_RANGE.

    The third channel, log(sqrt(R B) / G), holds nothing new; it keeps the image three channels wide, as detectors
    expect, without a constant channel that a pretrained first layer has never seen.
    """
    channels = np.concatenate([ratios, ratios.mean(axis=-1, keepdims=True)], axis=-1)
    return np.rint(NEUTRAL + 127 * np.clip(channels / LOG_RANGE, -1.0, 1.0)).astype(np.uint8)


def log_chromaticity(image: NDArray[np.uint8] | NDArray[np.uint16], *, epsilon: float = EPSILON) -> NDArray[np.uint8]:
    """Return the log-chromaticity image, (H, W, 3) uint8, of an sRGB photograph, (H, W, 3) uint8 or uint16, RGB order.

    Raises:
        ShapeError: The image is no RGB image of 8 or 16 bits.
    """
    if image.ndim != 3:
        raise ShapeError(f"image is {image.shape}, not (H, W, 3). Give an RGB image.")
    return encode_log_ratios(log_ratios(linearize_srgb(image), epsilon=epsilon))
