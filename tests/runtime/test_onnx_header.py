from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.onnx_header import ir_version


@pytest.mark.parametrize("version", [7, 10])
def test_the_version_of_the_format_is_read(tmp_path: Path, version: int) -> None:
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, ir_version=version), str(tmp_path / "m.onnx"))
    assert ir_version(tmp_path / "m.onnx") == version


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_what_is_no_onnx_file_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "m.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="not an ONNX file") as caught:
        ir_version(file)
    assert "\n" not in str(caught.value)
