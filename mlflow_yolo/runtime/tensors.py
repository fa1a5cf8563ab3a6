"""Names, types and shapes of what goes into a model file and comes out of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.openvino_session import import_openvino, model_file
from mlflow_yolo.runtime.session import open_onnx

_ONNX = {"float": "float32", "double": "float64"}
_OPENVINO = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16", "boolean": "bool"}
_OPENVINO |= {
    f"{kind}{bits}": f"{name}{bits}" for kind, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)
}


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model.

    Attributes:
        name: As the file has it.
        dtype: `float32`, `float16`, …, as NumPy spells it.
        shape: Sides, the batch first; None for one that is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Tensors:
    """Inputs and outputs of a model, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def tensors(path: Path) -> Tensors:
    """Return the inputs and outputs of a model file.

    Args:
        path: An .onnx file, or the folder with OpenVINO's .xml and .bin.

    Raises:
        CheckpointError: It cannot be read.
        ArgumentError: It is OpenVINO's, which is not installed.
    """
    return _of_onnx(path) if path.suffix == ".onnx" else _of_openvino(path)


def _of_onnx(path: Path) -> Tensors:
    session = open_onnx(path, threads=1, optimise=False)

    def tensor(entry: Any) -> Tensor:
        dtype = entry.type.removeprefix("tensor(").removesuffix(")")
        sides = tuple(side if isinstance(side, int) else None for side in entry.shape)
        return Tensor(entry.name, _ONNX.get(dtype, dtype), sides)

    return Tensors(tuple(map(tensor, session.get_inputs())), tuple(map(tensor, session.get_outputs())))


def _of_openvino(path: Path) -> Tensors:
    file = model_file(path)
    try:
        model = import_openvino().Core().read_model(str(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-300:]
        raise CheckpointError(f"model={file} cannot be read: {reason} Make it again.") from error

    def tensor(port: Any) -> Tensor:
        sides = tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)
        dtype = port.element_type.get_type_name()
        return Tensor(port.any_name, _OPENVINO.get(dtype, dtype), sides)

    return Tensors(tuple(map(tensor, model.inputs)), tuple(map(tensor, model.outputs)))
