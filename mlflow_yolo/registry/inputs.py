"""Images out of what MLflow hands to a model: a table's column, a list, an array, bytes, base64 or paths."""

import base64
import binascii
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import Pixels, read_image

IMAGE_COLUMN = "image"

_WAYS = "Pass image bytes, base64 text or pixels (height, width, 3)"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,", re.IGNORECASE)
_PLAIN_PIXMAP = re.compile(rb"P[1-6]\s")
_SHORTEST_BASE64 = 64
"""Characters; the smallest images of any format have more, names of files mostly fewer."""

_LONGEST_PATH = 4096

_SERVERS = ("mlflow.pyfunc.scoring_server.app", "mlflow.pyfunc.stdin_server", "mlserver")
_SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"


def is_served() -> bool:
    """Return whether what is predicted comes from a request rather than from this process' own user.

    MLflow says so in the environment (its own scoring server, and `mlflow models predict`, which imitates it); what it
    loads models with in other servers is known by name.
    """
    return os.environ.get(_SERVED, "").lower() in ("1", "true") or any(name in sys.modules for name in _SERVERS)


def cells_of(data: Any) -> list[Any]:
    """Return what stands for one image each.

    Args:
        data: A DataFrame with the column `image` or with one column, a Series, `{"image": [...]}`, a list or tuple, an
            array (N, H, W, C) or of objects; or one image: bytes, text, a path, pixels, a PIL image.

    Raises:
        ArgumentError: There is no image in it, or several columns and none is called `image`.
    """
    cells = _cells(data)
    if not cells:
        raise ArgumentError(f"data holds no image: it is empty. {_WAYS}, one a row.")
    return cells


def read_cell(cell: Any, *, served: bool, channels: int = 3) -> Pixels:
    """Return the pixels of one image.

    Args:
        cell: An image file's bytes; base64 as text, bytes or a `data:` URL; pixels as `read_image` takes them, or as
            nested lists of whole numbers 0 to 255; a PIL image; a path as text or `Path`.
        served: Whether it comes from a request: then no path is opened, whatever is there.
        channels: Channels of the model's input.

    Returns:
        (H, W, channels), 8 bits, BGR.

    Raises:
        ArgumentError: It is none of these, cannot be decoded, or names a path or an address that is not opened. An
            address in the network is never opened.
    """
    if isinstance(cell, str):
        return read_image(_of_text(str(cell), served=served), channels=channels)
    if isinstance(cell, bytes | bytearray | memoryview):
        return read_image(_of_bytes(bytes(cell)), channels=channels)
    if isinstance(cell, os.PathLike):
        if served:
            raise ArgumentError(f"a path is not opened for a request. {_WAYS}.")
        return read_image(Path(cell), channels=channels)
    if isinstance(cell, list | tuple) or (isinstance(cell, np.ndarray) and cell.dtype != np.uint8):
        return read_image(_of_numbers(cell), channels=channels)
    if isinstance(cell, np.ndarray | Image.Image):
        return read_image(cell, channels=channels)
    kind = "nothing" if cell is None or cell != cell else type(cell).__name__
    raise ArgumentError(f"{kind} is no image. {_WAYS}.")


def _cells(data: Any) -> list[Any]:
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return _column(data)
    if isinstance(data, pd.Series):
        return list(data)
    if isinstance(data, dict):
        if IMAGE_COLUMN not in data:
            raise ArgumentError(f"data holds {_listed(data)} and no {IMAGE_COLUMN!r}. Name it so.")
        return _cells(data[IMAGE_COLUMN])
    if isinstance(data, np.ndarray) and (data.ndim in (1, 4) or data.dtype.kind in "OSU"):
        return list(data.ravel() if data.dtype.kind in "OSU" else data)
    if isinstance(data, list | tuple) and not _is_pixels(data):
        return list(data)
    return [data]


def _column(frame: Any) -> list[Any]:
    if IMAGE_COLUMN in frame.columns:
        column = frame[IMAGE_COLUMN]
    elif len(frame.columns) == 1:
        column = frame.iloc[:, 0]
    else:
        raise ArgumentError(
            f"data has {len(frame.columns)} columns ({_listed(frame.columns)}) and none is called {IMAGE_COLUMN!r}. "
            "Name the one with the images so."
        )
    if column.ndim != 1:
        raise ArgumentError(f"data has several columns called {IMAGE_COLUMN!r}. Leave one.")
    return list(column)


def _is_pixels(values: Sequence[Any]) -> bool:
    """Return whether nested lists are one image's rows: (H, W) or (H, W, C) numbers."""
    first, depth = values, 0
    while isinstance(first, list | tuple) and first:
        first, depth = first[0], depth + 1
    return depth in (2, 3) and isinstance(first, int)


def _of_text(text: str, *, served: bool) -> bytes | str:
    if found := _DATA_URL.match(text):
        return _decoded(text[found.end() :])
    if _URL.match(text):
        raise ArgumentError(f"image={_short(text)} is an address; none is ever opened. {_WAYS}.")
    if served:
        return _decoded(text)
    if not os.path.isfile(text) and len(text) >= _SHORTEST_BASE64 and (image := _base64(text)) is not None:
        return image
    if len(text) > _LONGEST_PATH or "\0" in text:
        raise ArgumentError(f"image={_short(text)} is neither a path nor base64. {_WAYS}, or a path.")
    return text


def _of_bytes(data: bytes) -> bytes:
    """Return an image file's bytes: MLflow hands base64 on as bytes where a request names `inputs` or `instances`."""
    if _PLAIN_PIXMAP.match(data) or not data.isascii():
        return data
    image = _base64(data.decode("ascii"))
    return data if image is None else image


def _decoded(text: str) -> bytes:
    image = _base64(text)
    if image is None:
        raise ArgumentError(f"image={_short(text)} is not base64, and a request's text is nothing else. {_WAYS}.")
    return image


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_numbers(cell: Any) -> Any:
    """Return nested lists, or an array of another type that holds whole numbers, as 8 bits."""
    if isinstance(cell, np.ndarray) and cell.dtype == np.uint16:
        return cell
    try:
        pixels = np.array(_nested(cell))
    except (ValueError, OverflowError):
        raise ArgumentError(f"an image's rows have unequal lengths. {_WAYS}.") from None
    if pixels.dtype.kind not in "iu" or not pixels.size or pixels.min() < 0 or pixels.max() > 255:
        raise ArgumentError(
            f"an image has shape {pixels.shape} and type {pixels.dtype}. "
            "Pass whole numbers 0 to 255, (height, width, 3), BGR."
        )
    return pixels.astype(np.uint8)


def _nested(cell: Any) -> Any:
    """Return arrays within arrays, as a parquet file's nested lists come back, as lists."""
    if isinstance(cell, np.ndarray) and cell.dtype == object:
        return [_nested(part) for part in cell]
    return cell


def _listed(names: Any) -> str:
    words = [repr(name) for name in names]
    return _short(", ".join(words)) if words else "nothing"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:80]}…"
