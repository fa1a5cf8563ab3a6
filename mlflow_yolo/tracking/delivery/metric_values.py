"""Numbers on their way into the journal: taken from the caller in microseconds, made into records later, elsewhere.

`snapshot` runs in the trainer's thread and must cost next to nothing: 10,000 values take about half a millisecond.
`metric_records` runs in the journal's thread, in pieces, so that it never holds the interpreter for long.
"""

import functools
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.journal import Record

METRIC_NONFINITE = "nonfinite_values"
"""How many values of one `log_metrics` call were NaN or infinite: MLflow's charts leave such points out."""

PIECE = 500
"""Values a record holds at most: encoding one takes half a millisecond, which is how long the interpreter is held."""

_UNCHANGING = frozenset({float, int, bool, str, type(None)})

_key = functools.lru_cache(maxsize=1 << 17)(keys.sanitise)


def snapshot(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `values` that nothing outside can change any more; tensors and arrays become floats."""
    copy = dict(values)
    for key, value in copy.items():
        if type(value) not in _UNCHANGING:
            copy[key] = as_float(value)
    return copy


def metric_records(values: Mapping[str, Any], *, t: int, step: int) -> Iterator[Record]:
    """Yield the records of one `log_metrics` call.

    Args:
        values: What `snapshot` returned.
        t: When it was measured, milliseconds since 1970.
        step: Its position.
    """
    numbers: dict[str, float] = {}
    for piece in _pieces(values):
        for key, value in piece.items():
            number = as_float(value)
            if number is not None:
                numbers[_key(str(key))] = number
    if n_nonfinite := sum(not math.isfinite(number) for number in numbers.values()):
        numbers[METRIC_NONFINITE] = float(n_nonfinite)
    for piece in _pieces(numbers):
        yield {"type": "metrics", "t": t, "step": step, "values": piece}


def as_float(value: Any) -> float | None:
    """Return `value` (number, numpy scalar, tensor or array of one element) as a float, None where it is none."""
    if type(value) is float:
        return value
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _pieces(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `values` in dicts of at most `PIECE`, letting other threads run in between."""
    items = iter(values.items())
    while piece := dict(itertools.islice(items, PIECE)):
        yield piece
        if len(piece) == PIECE:
            time.sleep(0)
