"""Tests of what is read from an exported graph."""

from pathlib import Path

import onnx
import pytest

from mlflow_yolo.compression.quantization.graph import block_of, head_nodes, layer_of, layers, output_nodes


@pytest.mark.parametrize(
    ("name", "block", "layer"),
    [
        ("/model.0/conv/Conv", 0, "/model.0"),
        ("/model.2/cv1/act/Mul", 2, "/model.2/cv1"),
        ("/model.10/m/m.0/attn/MatMul_1", 10, "/model.10/m/m.0/attn"),
        ("/model.23/cv2.0/cv2.0.2/Conv", 23, "/model.23/cv2.0/cv2.0.2"),
        ("/model.23/Concat", 23, "/model.23"),
        ("Resize_7", None, ""),
    ],
)
def test_a_name_says_block_and_layer(name: str, block: int | None, layer: str) -> None:
    assert (block_of(name), layer_of(name)) == (block, layer)


def test_a_layer_is_a_convolution_with_its_activation() -> None:
    names = ["/model.0/conv/Conv", "/model.0/act/Sigmoid", "/model.1/conv/Conv", "/model.0/act/Mul"]
    assert layers(names) == {
        "/model.0": ("/model.0/conv/Conv", "/model.0/act/Sigmoid", "/model.0/act/Mul"),
        "/model.1": ("/model.1/conv/Conv",),
    }


def test_the_outputs_of_a_detector_begin_at_its_last_convolutions(float_folder: Path) -> None:
    graph = onnx.load(str(float_folder / "model.onnx")).graph
    names = set(output_nodes(graph))
    kinds = {node.name: node.op_type for node in graph.node}
    convolutions = {name for name in names if kinds[name] == "Conv"}
    expected = {
        f"/model.23/{branch}.{level}/{branch}.{level}.2/Conv" for branch in ("cv2", "cv3") for level in range(3)
    }
    assert convolutions == {*expected, "/model.23/dfl/conv/Conv"}
    last = {name for name in names if kinds[name] == "Sigmoid"}
    assert last == {"/model.23/Sigmoid"}  # of the scores; those of activations come before the convolutions
    assert all(name.startswith("/model.23/") for name in names)


def test_the_head_is_the_last_block(float_folder: Path) -> None:
    graph = onnx.load(str(float_folder / "model.onnx")).graph
    expected = [node.name for node in graph.node if node.name.startswith("/model.23/")]
    assert list(head_nodes(graph)) == expected
    assert set(output_nodes(graph)) < set(expected)


def test_a_graph_without_block_names_has_no_head() -> None:
    from onnx import helper

    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"], name="relu")], "graph", [], [])
    assert head_nodes(graph) == ()


def test_mask_prototypes_are_no_part_of_the_head() -> None:
    from onnx import helper

    names = ["/model.2/conv/Conv", "/model.22/proto/cv1/conv/Conv", "/model.22/cv4.0/Conv"]
    nodes = [helper.make_node("Relu", ["a"], [f"b{index}"], name=name) for index, name in enumerate(names)]
    assert head_nodes(helper.make_graph(nodes, "graph", [], [])) == ("/model.22/cv4.0/Conv",)
