"""MLflow's scoring protocol: images out of its JSON and CSV bodies."""

import base64
import binascii
import csv
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_yolo.deployment.http.limits import Limits, Refused
from mlflow_yolo.deployment.http.uploads import media_type
from mlflow_yolo.deployment.http.wishes import read_options
from mlflow_yolo.deployment.inference.backend import Answer, Options
from mlflow_yolo.registry.predictor import to_table
from mlflow_yolo.runtime.images import Pixels

_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_COLUMN = "image"
_DATA_URL = re.compile(r"\Adata:[\w/+.-]{0,80};base64,", re.IGNORECASE)
_TAKEN = "application/json or text/csv"


@dataclass(frozen=True)
class Invocation:
    """What one request of the protocol asks.

    Attributes:
        images: Image files, or pixels (H, W, 3) BGR, 8 bits.
        options: Which detections are wanted.
    """

    images: Sequence[bytes | Pixels]
    options: Options


def read_invocation(content_type: str, body: bytes, limits: Limits) -> Invocation:
    """Return the images that a body of MLflow's protocol holds, base64 or nested lists of pixels, and its params.

    No text in it is ever taken for a path or an address.

    Raises:
        Refused: 415 for another type of body; 400 for one that is not of the protocol, or whose image is neither
            base64 nor pixels; 413 for too many images.
    """
    kind = media_type(content_type)
    if kind == "application/json":
        cells, params = _read_json(body)
    elif kind == "text/csv":
        cells, params = _read_csv(body, limits), {}
    else:
        raise Refused(415, f"Content-Type {kind[:80] or 'of nothing'} is not taken. Send {_TAKEN}.")
    if len(cells) > limits.max_batch:
        raise Refused(413, f"more than {limits.max_batch} images in one request. Send them in several.")
    if not len(cells):
        raise Refused(400, "the request has no image. Send one or more.")
    return Invocation([_image(cell, limits) for cell in cells], read_options(params))


def _read_json(body: bytes) -> tuple[Sequence[Any], Mapping[str, Any]]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {str(error)[:200]}.") from None
    given = [name for name in _FORMATS if name in content] if isinstance(content, dict) else []
    if len(given) != 1:
        raise Refused(400, f"the body is no JSON object with exactly one of {', '.join(_FORMATS)}.")
    params = content.get("params") or {}
    if not isinstance(params, dict):
        raise Refused(400, 'params is no JSON object. Send for example {"conf": 0.4}.')
    return _cells(given[0], content[given[0]]), params


def _cells(name: str, data: Any) -> Sequence[Any]:
    """Return one cell an image."""
    if name == "dataframe_split":
        if not isinstance(data, dict) or not _is_table(data.get("data")):
            raise Refused(400, "dataframe_split has no list of rows in data.")
        rows, columns = data["data"], data.get("columns")
        at = _column(columns, max(map(len, rows), default=1))
        if any(len(row) <= at for row in rows):
            raise Refused(400, "dataframe_split has a row that is shorter than its columns.")
        return [row[at] for row in rows]
    if name == "dataframe_records":
        if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
            raise Refused(400, "dataframe_records is no list of objects.")
        return [_of_record(row) for row in data]
    if isinstance(data, dict):  # inputs: {"image": [...]}
        data = _of_record(data)
    if not isinstance(data, list):
        data = [data]
    if data and _depth(data) == 3:  # one image's pixels
        return [data]
    return [_of_record(cell) if isinstance(cell, dict) else cell for cell in data]


def _is_table(rows: Any) -> bool:
    return isinstance(rows, list) and all(isinstance(row, list) for row in rows)


def _column(columns: Any, n_columns: int) -> int:
    """Return where the images stand: in the column `image`, or in the only one."""
    names = columns if isinstance(columns, list) else list(range(n_columns))
    if _COLUMN in names:
        return names.index(_COLUMN)
    if len(names) != 1:
        raise Refused(400, f"there are {len(names)} columns and none is called {_COLUMN}. Name it so.")
    return 0


def _of_record(row: Mapping[str, Any]) -> Any:
    """Return the image of a row: `{"image": …}`, `{"b64": …}` as TensorFlow Serving writes it, or the only value."""
    for name in (_COLUMN, "b64"):
        if name in row:
            value = row[name]
            return _of_record(value) if isinstance(value, dict) and name == _COLUMN and "b64" in value else value
    if len(row) != 1:
        raise Refused(400, f"a row has {len(row)} values and none is called {_COLUMN}. Name it so.")
    return next(iter(row.values()))


def _depth(value: Any) -> int:
    """Return how deep lists are nested along their first elements."""
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth


def _read_csv(body: bytes, limits: Limits) -> Sequence[Any]:
    # The reader's own limit of 131,072 characters a cell holds for the process; images are longer.
    csv.field_size_limit(max(csv.field_size_limit(), len(body)))
    try:
        filled = (row for row in csv.reader(io.StringIO(body.decode(), newline="")) if row)
        rows = list(itertools.islice(filled, limits.max_batch + 2))  # one line too many is enough to refuse them
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(400, f"the body is no CSV in UTF-8: {str(error)[:200]}.") from None
    if not rows:
        raise Refused(400, "the CSV has no line. Begin with the name of the column.")
    at = _column(rows[0], len(rows[0]))
    if any(len(row) <= at for row in rows):
        raise Refused(400, "the CSV has a row that is shorter than its header.")
    return [row[at] for row in rows[1:]]


def _image(cell: Any, limits: Limits) -> bytes | Pixels:
    if isinstance(cell, str):
        try:
            return base64.b64decode("".join(_DATA_URL.sub("", cell, count=1).split()), validate=True)
        except (binascii.Error, ValueError):
            raise Refused(400, "an image is text that is not base64. Paths and addresses are not opened.") from None
    if not isinstance(cell, list):
        raise Refused(400, f"an image is {type(cell).__name__}. Send base64, or pixels as nested lists.")
    try:
        pixels = np.asarray(cell)
    except (ValueError, OverflowError, RecursionError):
        raise Refused(
            400, "an image's nested lists have unequal lengths. Send (height, width, 3) of 0 to 255."
        ) from None
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size or pixels.dtype.kind not in "iu":
        raise Refused(
            400, f"an image has shape {pixels.shape}. Send (height, width, 3) of whole numbers 0 to 255, BGR."
        )
    if pixels.shape[0] * pixels.shape[1] > limits.max_pixels:
        raise Refused(413, f"an image is {pixels.shape[1]}x{pixels.shape[0]} pixels. Scale it down.")
    if pixels.min() < 0 or pixels.max() > 255:
        raise Refused(400, "an image has values that are not whole numbers from 0 to 255.")
    return pixels.astype(np.uint8)


def rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return predictions as the model's own pyfunc makes them: a row a detection, its image by number."""
    found = [answer.detections for answer in answers]
    table = to_table(found, [(one.height, one.width) for one in answers], task=answers[0].model.task)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]
