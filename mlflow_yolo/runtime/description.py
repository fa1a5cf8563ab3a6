"""What a model file is: from `variant.json` beside it, or from what Ultralytics wrote into its own exports."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.session import open_onnx
from mlflow_yolo.variant import Variant, digest, is_variant, read_variant

TASKS = ("detect", "segment", "classify")

_METADATA_FILE = "metadata.yaml"
_PRECISIONS = {8: "int8", 16: "fp16"}


def describe(path: Path) -> tuple[Path, Variant]:
    """Return the model file, or folder, that `path` means, and what it is.

    Args:
        path: A variant's folder, its `variant.json` or its file; or an export of Ultralytics itself: an .onnx file, a
            `*_openvino_model` folder or the .xml in it.

    Raises:
        CheckpointError: There is no such file, it is damaged, it does not say what it is, its task is none of `TASKS`,
            or a variant's bytes have changed.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"model={path} does not exist. Name a variant's folder or an .onnx file.")
    model, variant = _read(path.parent if path.suffix == ".xml" else path)
    if variant.task not in TASKS:
        raise CheckpointError(f"model={path} has task={variant.task}. The runtime runs {', '.join(TASKS)}.")
    return model, variant


def _read(path: Path) -> tuple[Path, Variant]:
    if is_variant(path):
        folder = path if path.is_dir() else path.parent
        variant = read_variant(folder)
        return folder / variant.file, variant
    if is_variant(path.parent) and read_variant(path.parent, check=False).file == path.name:
        return _read(path.parent)
    if path.suffix == ".onnx" and path.is_file():
        return path, _of_onnx(path)
    if (path / _METADATA_FILE).is_file() and any(path.glob("*.xml")):
        return path, _of_openvino(path)
    raise CheckpointError(
        f"model={path} is neither a variant's folder, an .onnx file nor an OpenVINO folder with {_METADATA_FILE}. "
        "Export the checkpoint."
    )


def _of_onnx(path: Path) -> Variant:
    """Return what an .onnx file says of itself; its input's size is the graph's own where that is fixed."""
    session = open_onnx(path, threads=1, optimise=False)
    shape = session.get_inputs()[0].shape
    metadata = {name: _literal(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    fixed = [side for side in shape[2:4] if isinstance(side, int)]
    return _variant(path, metadata, "onnx", dynamic=len(fixed) < 2, imgsz=fixed if len(fixed) == 2 else None)


def _of_openvino(path: Path) -> Variant:
    file = path / _METADATA_FILE
    try:
        metadata = yaml.safe_load(file.read_text(encoding="utf-8"))
        dynamic = bool((metadata.get("args") or {}).get("dynamic"))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} cannot be read: {reason}. Export the model again.") from error
    return _variant(path, metadata, "openvino", dynamic=dynamic, imgsz=None)


def _variant(path: Path, metadata: Mapping[str, Any], runtime: str, *, dynamic: bool, imgsz: Any) -> Variant:
    """Return the variant that Ultralytics' metadata describes."""
    try:
        arguments = metadata.get("args") or {}
        names = metadata["names"]
        height, width = (int(side) for side in imgsz or metadata["imgsz"])
        precision = _PRECISIONS.get(arguments.get("quantize") or 0, "fp32")
        return Variant(
            kind=f"{precision if (precision, runtime) != ('fp16', 'openvino') else 'fp32'}-{runtime}",
            file=path.name,
            task=str(metadata["task"]),
            names=tuple(str(names[index]) for index in range(len(names))),
            imgsz=(height, width),
            stride=int(metadata["stride"]),
            channels=int(metadata.get("channels", 3)),
            end2end=bool(metadata.get("end2end")) or bool(arguments.get("nms")),
            opset=arguments.get("opset"),
            dynamic=dynamic,
            sha256=digest(path),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"model={path} does not say what it is ({type(error).__name__}: {error}). "
            "Export it with Ultralytics 8 or newer, or with mlflow-yolo export."
        ) from error


def _literal(text: str) -> Any:
    """Return the Python value that Ultralytics wrote as text, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
