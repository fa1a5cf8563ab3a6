"""What a model file says of itself, read by the libraries of its format and not by the runtime that serves it."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import yaml

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.openvino_session import import_openvino, model_file

WORDS = ("names", "stride", "imgsz", "task", "end2end", "channels")
"""What file, `variant.json` and parent have to agree on."""

_METADATA_FILE = "metadata.yaml"
_SIDES = slice(2, 4)


def own_words(file: Path) -> dict[str, Any]:
    """Return those of `WORDS` that a file says, as `Variant` has them; a fixed input's size is the graph's own.

    Args:
        file: An .onnx file, or a folder with OpenVINO's .xml and .bin.

    Raises:
        CheckpointError: The file cannot be read.
        ArgumentError: OpenVINO is not installed.
    """
    said, shape = _of_onnx(file) if file.suffix == ".onnx" else _of_openvino(file)
    try:
        return _words(said, shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"what {file.name} says of itself makes no sense ({reason}). Export it again.") from error


def check_file(file: Path) -> None:
    """Raise CheckpointError unless the file is one that its format's own library accepts.

    Raises:
        ArgumentError: OpenVINO is not installed.
    """
    if file.suffix != ".onnx":
        _read_openvino(file)
        return
    try:
        onnx.checker.check_model(str(file))
    except Exception as error:  # its errors share no class
        raise _unreadable(file, error) from error


def _of_onnx(file: Path) -> tuple[dict[str, Any], list[int | None]]:
    try:
        model = onnx.load(str(file), load_external_data=False)
        sides = model.graph.input[0].type.tensor_type.shape.dim
    except Exception as error:  # its errors share no class
        raise _unreadable(file, error) from error
    said = {entry.key: _literal(entry.value) for entry in model.metadata_props}
    return said, [side.dim_value if side.HasField("dim_value") else None for side in sides]


def _of_openvino(file: Path) -> tuple[dict[str, Any], list[int | None]]:
    """Return what Ultralytics wrote beside the model, or what OpenVINO took over from the ONNX file."""
    model = _read_openvino(file)
    shape = [None if side.is_dynamic else side.get_length() for side in model.input(0).partial_shape]
    beside = file / _METADATA_FILE
    if beside.is_file():
        try:
            return dict(yaml.safe_load(beside.read_text(encoding="utf-8"))), shape
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise _unreadable(beside, error) from error
    known = [word for word in (*WORDS, "args") if model.has_rt_info(["framework", word])]
    return {word: _literal(str(model.get_rt_info(["framework", word]).value)) for word in known}, shape


def _read_openvino(file: Path) -> Any:
    path = model_file(file)
    core = import_openvino().Core()
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _words(said: Mapping[str, Any], shape: list[int | None]) -> dict[str, Any]:
    words: dict[str, Any] = {word: said[word] for word in ("task",) if word in said}
    if "names" in said:
        names = said["names"]
        words["names"] = tuple(str(names[index]) for index in range(len(names)))
    if "stride" in said:
        words["stride"] = int(said["stride"])
    fixed = [side for side in shape[_SIDES] if side is not None]
    if len(fixed) == 2 or "imgsz" in said:
        height, width = fixed if len(fixed) == 2 else said["imgsz"]
        words["imgsz"] = (int(height), int(width))
    channels = said.get("channels") or (shape[1] if len(shape) > 1 else None)
    if channels is not None:
        words["channels"] = int(channels)
    # Older exports say nothing of a head that needs suppression.
    words["end2end"] = bool(said.get("end2end")) or bool((said.get("args") or {}).get("nms"))
    return words


def _literal(text: str) -> Any:
    """Return the Python value that Ultralytics wrote as text, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return CheckpointError(f"{file.name} cannot be read: {reason} Make it again.")
