from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.activations import Activations
from tests.runtime.small_models import SmallModel

Array = npt.NDArray[np.float32]


def constant(name: str, value: Any, kind: int = TensorProto.FLOAT) -> Any:
    array = np.asarray(value)
    return helper.make_tensor(name, kind, array.shape, array.flatten().tolist())


def write_graph(path: Path, *, batch: int | str, quantised: bool = False) -> Path:
    """Write three blocks: 2 x + 1, its square, and a head that takes the sum over the image of both."""
    nodes = [
        helper.make_node("Mul", ["images", "two"], ["doubled"], "/model.0/Mul"),
        helper.make_node("Add", ["doubled", "one"], ["first"], "/model.0/cv1/Add"),
    ]
    given = "first"
    if quantised:
        nodes += [
            helper.make_node(
                "QuantizeLinear", ["first", "one", "zero"], ["coded"], "/model.0/cv1/first_QuantizeLinear"
            ),
            helper.make_node("DequantizeLinear", ["coded", "one", "zero"], ["given"], "first_DequantizeLinear"),
        ]
        given = "given"
    nodes += [
        helper.make_node("Mul", [given, given], ["second"], "/model.1/Mul"),
        helper.make_node("ReduceSum", [given, "places"], ["sums"], "/model.2/ReduceSum", keepdims=0),
        helper.make_node("ReduceSum", ["second", "places"], ["squares"], "/model.2/ReduceSum_1", keepdims=0),
        helper.make_node("Concat", ["sums", "squares"], ["output0"], "/model.2/Concat", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 1, 2, 3])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 2])],
        [
            constant("one", 1.0),
            constant("two", 2.0),
            constant("zero", 0, TensorProto.UINT8),
            constant("places", [2, 3], TensorProto.INT64),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("quantised", [False, True], ids=["float", "quantised"])
@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_a_block_is_what_its_last_node_gives(tmp_path: Path, batch: int | str, quantised: bool) -> None:
    looked = Activations(write_graph(tmp_path / "model.onnx", batch=batch, quantised=quantised))
    images = np.arange(18, dtype=np.float32).reshape(3, 1, 2, 3)
    found = looked.run(images)
    assert looked.batch == (None if batch == "batch" else batch)
    assert (looked.blocks, looked.sources) == ((0, 1), (0, 1))
    np.testing.assert_array_equal(found[0], 2 * images + 1)
    np.testing.assert_array_equal(found[1], (2 * images + 1) ** 2)


def test_only_blocks_that_are_asked_for_are_given_and_the_head_has_no_grid(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "model.onnx", batch=1)
    images = np.ones((1, 1, 2, 3), dtype=np.float32)
    assert set(Activations(path, [1]).run(images)) == {1}
    assert set(Activations(path, [2, 0]).run(images)) == {0}
    assert set(Activations(path, []).run(images)) == {0, 1}


def test_what_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "model.onnx", batch=1)
    with pytest.raises(ArgumentError, match=r"block=7 is not in .*Use one of 0, 1"):
        Activations(path, [0, 7])
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"node_{node.name}"
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match=r"foreign\.onnx does not name the blocks"):
        Activations(tmp_path / "foreign.onnx")
    for content in (b"", b"no graph", path.read_bytes()[:-60]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"broken\.onnx"):
            Activations(tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match=r"none\.onnx"):
        Activations(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("version", "task"), [("yolov8n", "segment"), ("yolo11n", "detect"), ("yolo26n", "detect"), ("yolo11n", "classify")]
)
def test_blocks_of_an_export_give_what_those_of_the_checkpoint_give(
    version: str, task: str, small_models: Callable[[str, str], SmallModel]
) -> None:
    from ultralytics import YOLO

    model = small_models(version, task)
    shape = (64, 64) if task == "classify" else (96, 128)
    images = np.random.default_rng(0).random((2, 3, *shape), dtype=np.float32)
    network: Any = YOLO(model.checkpoint).model.eval()
    expected: dict[int, Array] = {}
    for i, block in enumerate(network.model[:-1]):
        block.register_forward_hook(lambda module, inputs, output, i=i: expected.update({i: output.numpy()}))
    with torch.no_grad():
        network(torch.from_numpy(images))

    looked = Activations(model.onnx, threads=1)
    found = looked.run(images)
    assert set(found) == set(expected)
    for i, grid in found.items():
        np.testing.assert_allclose(grid, expected[i], atol=1e-4 * float(np.abs(expected[i]).max()), rtol=0)
    head = network.model[-1].f
    assert list(looked.sources) == ([len(network.model) - 2] if head == -1 else head)
