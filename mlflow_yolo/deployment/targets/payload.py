"""Images as a body of MLflow's scoring protocol, as `/invocations` takes it."""

import base64
from typing import Any

import numpy as np
import pandas as pd

from mlflow_yolo.exceptions import ArgumentError

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def payload(inputs: Any) -> dict[str, Any]:
    """Return a JSON body of the protocol.

    Args:
        inputs: A DataFrame with a column of image files' bytes, base64 or arrays; a body of the protocol, also as
            `pandas.read_json` reads one from a file (MLflow's command line does); an image file's bytes, an array
            (H, W, 3), or a list of either.

    Raises:
        ArgumentError: It is none of them.
    """
    if isinstance(inputs, pd.DataFrame):
        return _unfolded(inputs) or {"dataframe_split": _split(inputs)}
    if isinstance(inputs, dict):
        if sum(name in inputs for name in FORMATS) != 1:
            raise ArgumentError(f"inputs has the keys {', '.join(map(str, inputs))}. Use one of {', '.join(FORMATS)}.")
        return {str(key): _plain(value) for key, value in inputs.items()}
    if isinstance(inputs, bytes | np.ndarray):
        many = isinstance(inputs, np.ndarray) and (inputs.ndim == 4 or inputs.dtype == object)
        return {"inputs": [_plain(one) for one in (inputs if many else [inputs])]}
    if isinstance(inputs, list | tuple):
        return {"inputs": [_plain(one) for one in inputs]}
    raise ArgumentError(f"inputs={type(inputs).__name__} is no image. Pass a DataFrame, bytes, an array or a list.")


def _split(frame: pd.DataFrame) -> dict[str, Any]:
    rows = [[_plain(cell) for cell in row] for row in frame.itertuples(index=False)]
    return {"columns": [str(name) for name in frame.columns], "data": rows}


def _unfolded(frame: pd.DataFrame) -> dict[str, Any] | None:
    """Return the body that was read as a table, None for a table of images."""
    name = next((name for name in FORMATS if name in frame.columns), None)
    if name is None:
        return None
    column = frame[name].dropna()
    body: dict[str, Any] = {name: column.to_dict() if name == "dataframe_split" else list(column)}
    if "params" in frame.columns:
        body["params"] = frame["params"].dropna().to_dict()
    return _plain(body)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; bytes as base64."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
