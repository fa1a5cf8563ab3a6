"""A map of where the model looks, laid over the picture it belongs to.

A map is first written in 255 levels, then enlarged to the picture, then coloured: the report's page does the same with
the same levels and the same colour table, so that a strip in the UI and the page show one picture. Where the map is
zero nothing is laid over, where it is largest the colour is densest. Everything here takes maps that cover exactly the
picture.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError, ShapeError

Pixels = npt.NDArray[np.uint8]

TOP = 254
"""The highest level; a signed map has its zero at 127, so that both signs have 127 levels."""
MOST_CELLS = 40
"""Cells a side that a map needs at most: a crop of 200 pixels shows no more."""
# Both are of even steps to the eye. What is pale is left out, since it is lost on a bright picture: plasma's last
# yellow, and the middle of coolwarm, whose place the picture itself takes.
_SEQUENTIAL = np.linspace(0.0, 0.88, TOP + 1)
_DIVERGING = np.concatenate([np.linspace(0.0, 0.25, TOP // 2), [0.5], np.linspace(0.75, 1.0, TOP // 2)])


@lru_cache(maxsize=2)
def color_table(signed: bool) -> Pixels:
    """Return colour and opacity of each level, (255, 4) uint8 RGBA, not premultiplied; read-only."""
    colors = colormaps["coolwarm"](_DIVERGING) if signed else colormaps["plasma"](_SEQUENTIAL)
    steps = np.arange(TOP + 1)
    shares = np.abs(2 * steps - TOP) / TOP if signed else steps / TOP
    table: Pixels = np.rint(255 * np.column_stack([colors[:, :3], shares])).astype(np.uint8)
    table.setflags(write=False)
    return table


def largest(values: npt.NDArray[Any], *, signed: bool = False) -> float:
    """Return the largest finite value (of a signed map: the largest size) or 0.0 where there is none above zero."""
    known = _finite(values)
    return max(0.0, float((np.abs(known) if signed else known).max(initial=0.0)))


def levels(values: npt.NDArray[Any], *, limit: float | None = None, signed: bool = False) -> Pixels:
    """Return a map in whole levels, 0 to 254.

    Args:
        values: (h, w) map of any unit.
        limit: The value of the highest level; None means the map's largest. Values beyond it are cut.
        signed: Level 127 is zero, 0 is -limit; otherwise level 0 is zero and what is below it.

    Returns:
        (h, w) uint8. What is not finite counts as zero, and so does everything when the limit is 0.

    Raises:
        ShapeError: `values` is not (h, w) or has no cells.
        ArgumentError: `limit` is negative or not finite.
    """
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(f"a map is (h, w) with at least one cell, got {values.shape}. Pass one map at a time.")
    if limit is not None and not 0 <= limit < np.inf:
        raise ArgumentError(f"limit={limit} is no largest value of a map. Use a finite number, at least 0.")
    top = largest(values, signed=signed) if limit is None else float(limit)
    cut = np.clip(_finite(values), -top if signed else 0.0, top)
    shares = cut / top if top > 0 else cut
    return np.rint(TOP / 2 + TOP / 2 * shares if signed else TOP * shares).astype(np.uint8)


def layer(leveled: Pixels, size: tuple[int, int], *, signed: bool = False) -> Pixels:
    """Return what is laid over a picture at full strength.

    Args:
        leveled: (h, w) from `levels`.
        size: Height and width of the picture, pixels.
        signed: As for `levels`.

    Returns:
        (H, W, 4) uint8 RGBA, not premultiplied: enlarged between the cells' centres by straight lines, then coloured.
        Opacity is proportional to the value's size: 0 at zero, 255 at the limit.
    """
    enlarged = np.rint(_resize(leveled.astype(np.float32), size)).astype(np.uint8)
    return np.take(color_table(signed), enlarged, axis=0)


def blend(image: Pixels, over: Pixels, strength: float) -> Pixels:
    """Return (H, W, 3) uint8: the image under a layer whose opacity is multiplied by `strength`, 0 to 1.

    Raises:
        ArgumentError: `strength` is outside 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ArgumentError(f"strength={strength} is no share. Use 0 (the image alone) to 1 (the map covers it).")
    opacity = over[..., 3:].astype(np.float32) * np.float32(strength / 255)
    below = image.astype(np.float32)
    return np.rint(below + (over[..., :3].astype(np.float32) - below) * opacity).astype(np.uint8)


def overlay(image: Pixels, values: npt.NDArray[Any], *, strength: float = 0.7, largest: float | None = None) -> Pixels:
    """Return the image with a map over it.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (h, w) map >= 0 that covers exactly the image; what is below zero or not finite counts as zero.
        strength: Opacity of the largest value, 0 to 1.
        largest: The value that gets the last colour, the same for maps to be compared; None means this map's own.

    Returns:
        (H, W, 3) uint8 RGB; where the map is zero, and everywhere for a map of zeros, the image's own pixels.

    Raises:
        ShapeError: `image` is not (H, W, 3) uint8, or `values` is not (h, w).
        ArgumentError: `strength` or `largest` is out of range.
    """
    check_picture(image)
    return blend(image, layer(levels(values, limit=largest), image.shape[:2]), strength)


def signed_overlay(
    image: Pixels, values: npt.NDArray[Any], *, limit: float | None = None, strength: float = 0.7
) -> Pixels:
    """Return the image with a signed map over it: red above zero, blue below, nothing at zero.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (h, w) map that covers exactly the image.
        limit: The size of the last colours of both signs, the same for panels to be compared; None means this map's
            own.
        strength: Opacity at the limit, 0 to 1.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ShapeError: `image` is not (H, W, 3) uint8, or `values` is not (h, w).
        ArgumentError: `strength` or `limit` is out of range.
    """
    check_picture(image)
    over = layer(levels(values, limit=limit, signed=True), image.shape[:2], signed=True)
    return blend(image, over, strength)


def shrunk(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the map, averaged down to at most 40 cells a side where it has more."""
    h, w = values.shape
    few = _finite(values).astype(np.float32)
    return few if max(h, w) <= MOST_CELLS else _resize(few, (min(h, MOST_CELLS), min(w, MOST_CELLS)))


def check_picture(image: npt.NDArray[Any]) -> None:
    """Raise ShapeError unless `image` is (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        found = f"{image.shape} {image.dtype}"
        raise ShapeError(f"a picture is (H, W, 3) uint8 RGB, got {found}. Convert grey or BGRA images before.")


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _resize(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return (H, W) float32: bilinear where it grows, averaged with a triangle where it shrinks."""
    height, width = size
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
