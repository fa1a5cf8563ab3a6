"""Which detections a request wants, in its query or its params."""

import math
from collections.abc import Mapping
from typing import Any

from mlflow_yolo.deployment.http.annotate import MEDIA_TYPES
from mlflow_yolo.deployment.http.limits import Refused
from mlflow_yolo.deployment.inference.backend import Options
from mlflow_yolo.exceptions import ArgumentError

_KINDS = {"conf": float, "iou": float, "max_det": int}
_MOST_DETECTIONS = 100_000  # more than any model has boxes
_ANNOTATE = {"0": "", "false": "", "1": "as sent", "true": "as sent"} | {kind: kind for kind in MEDIA_TYPES}


def read_options(given: Mapping[str, Any]) -> Options:
    """Return the options among numbers, or texts that are numbers; null is the operating point's.

    Raises:
        Refused: 400 for an option that is not known, no number, or out of its range.
    """
    for name in given:
        if name not in _KINDS:
            raise Refused(400, f"{str(name)[:40]} is no option. Use {', '.join(_KINDS)}.")
    try:
        return Options(**{name: _number(name, value) for name, value in given.items() if value is not None})
    except ArgumentError as error:
        raise Refused(400, str(error)) from None


def read_query(given: Mapping[str, str]) -> tuple[Options, str]:
    """Return the options of a query, and whether its answer is a picture: empty, `as sent`, `jpeg` or `png`.

    Raises:
        Refused: As `read_options`.
    """
    options = {name: value for name, value in given.items() if name != "annotate"}
    word = given.get("annotate", "0").lower()
    if word not in _ANNOTATE:
        raise Refused(400, f"annotate={word[:40]} is not known. Use {', '.join(_ANNOTATE)}.")
    return read_options(options), _ANNOTATE[word]


def _number(name: str, value: Any) -> Any:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Refused(400, f"{name}={str(value)[:40]} is no number.") from None
    if _KINDS[name] is float:
        return number
    if not math.isfinite(number) or number != int(number) or number > _MOST_DETECTIONS:
        raise Refused(400, f"{name}={str(value)[:40]} is no whole number up to {_MOST_DETECTIONS}.")
    return int(number)
