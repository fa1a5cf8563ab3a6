"""Tests of the free batch axis."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mlflow_yolo.compression.batch_axis import free_batch


def model(target: list[int], *, constant: bool = False) -> onnx.ModelProto:
    """Return images (1, 2, 3) -> Reshape(target) -> output0, plus a constant of a batch of one if asked for."""
    constants = [numpy_helper.from_array(np.array(target, np.int64), "target")]
    nodes = [helper.make_node("Reshape", ["images", "target"], ["flat"], name="reshape")]
    if constant:
        constants.append(numpy_helper.from_array(np.ones((1, 6), np.float32), "row"))
        nodes.append(helper.make_node("Concat", ["flat", "row"], ["output0"], name="concat", axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["flat"], ["output0"], name="same"))
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 2, 3]),
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 12 if constant else 6]),
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_reshape_to_one_row_becomes_a_reshape_to_as_many_rows_as_images(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(model([1, 6]), str(file))
    assert free_batch(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    images = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    np.testing.assert_array_equal(session.run(None, {"images": images})[0], images.reshape(3, 6))
    assert not isinstance(session.get_outputs()[0].shape[0], int | str)


def test_a_file_whose_batch_cannot_be_free_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(model([1, 6], constant=True), str(file))  # one row of constants cannot be joined to two of images
    before = file.read_bytes()
    assert not free_batch(file)
    assert file.read_bytes() == before


def test_a_graph_that_mixes_the_images_of_a_batch_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    mixed = model([1, 6])
    mixed.graph.node[1].CopyFrom(helper.make_node("Softmax", ["flat"], ["output0"], name="mix", axis=0))
    onnx.save(mixed, str(file))
    before = file.read_bytes()
    assert not free_batch(file)
    assert file.read_bytes() == before
