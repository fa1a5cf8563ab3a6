from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.tensors import Tensor, Tensors, tensors


def model(path: Path, kind: int, sides: list[int | str]) -> Path:
    entry = helper.make_tensor_value_info("images", kind, sides)
    output = helper.make_tensor_value_info("output0", kind, sides)
    node = helper.make_node("Identity", ["images"], ["output0"])
    graph = helper.make_graph([node], "same", [entry], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT64, "int64"),
    ],
)
def test_an_onnx_file_says_names_types_and_sides(kind: int, dtype: str, tmp_path: Path) -> None:
    file = model(tmp_path / "model.onnx", kind, ["batch", 3, 32, "width"])
    sides = (None, 3, 32, None)
    assert tensors(file) == Tensors((Tensor("images", dtype, sides),), (Tensor("output0", dtype, sides),))


def test_an_openvino_folder_says_the_same(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    read = openvino.Core().read_model(str(model(tmp_path / "model.onnx", TensorProto.FLOAT, ["batch", 3, 32, 64])))
    (tmp_path / "model").mkdir()
    openvino.save_model(read, str(tmp_path / "model" / "model.xml"))
    sides = (None, 3, 32, 64)
    expected = Tensors((Tensor("images", "float32", sides),), (Tensor("output0", "float32", sides),))
    assert tensors(tmp_path / "model") == expected


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_a_damaged_file_is_said(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=name):
        tensors(tmp_path / name if name.endswith("onnx") else tmp_path)
