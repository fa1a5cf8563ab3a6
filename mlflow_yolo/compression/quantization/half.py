"""Half precision: half the file; on processors without fp16 arithmetic no faster, since numbers are converted back."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_yolo.compression.quantization.graph import output_nodes
from mlflow_yolo.compression.quantization.quiet import quiet
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import Variant, read_variant, write_variant

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

MODEL_FILE = "model.onnx"
_FLOAT, _HALF = 1, 10


def convert_half(source: Path, directory: Path) -> Variant:
    """Write the fp16 version of a float32 ONNX variant, with inputs and outputs still in float32.

    What decodes the boxes stays in float32: above 512, half precision has steps of half a pixel.

    Args:
        source: Folder of the `fp32-onnx` variant.
        directory: An existing empty folder; `model.onnx` and `variant.json` are written there.

    Returns:
        The variant, of kind `fp16-onnx`.

    Raises:
        ArgumentError: The source is no float32 ONNX variant.
        CheckpointError: It cannot be read.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    variant = read_variant(source)
    if variant.kind != "fp32-onnx":
        raise ArgumentError(f"{source} is of kind {variant.kind}; fp16 starts from fp32-onnx. Export it first.")
    model = onnx.load(str(source / variant.file))
    with quiet():  # it warns of weights below 6e-8, which become 0
        half = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=False, node_block_list=list(output_nodes(model.graph))
        )
    _keep_single(half)
    onnx.save(half, str(directory / MODEL_FILE))
    sources = {**variant.sources, "fp32_sha256": variant.sha256}
    return write_variant(directory, replace(variant, kind="fp16-onnx", file=MODEL_FILE, sources=sources))


def _keep_single(model: "ModelProto") -> None:
    """Remove the conversions to fp16 and back between nodes that stay in float32, which the converter puts there.

    They would round every value on its way; and two nodes that read one tensor get two casts of the same name.
    """
    from onnxruntime.transformers.onnx_model import OnnxModel

    graph = model.graph
    halves = {node.output[0]: node.input[0] for node in graph.node if _casts_to(node, _HALF)}
    singles = {node.output[0]: node.input[0] for node in graph.node if _casts_to(node, _FLOAT)}
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if singles.get(name) in halves:
                node.input[index] = halves[singles[name]]
        if node.output[0] in outputs and singles.get(node.output[0]) in halves:
            node.op_type, node.input[0] = "Identity", halves[node.input[0]]
            del node.attribute[:]
    _drop_unused(graph, outputs)
    OnnxModel(model).topological_sort()


def _casts_to(node: "NodeProto", number_format: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == number_format


def _drop_unused(graph: "GraphProto", outputs: set[str]) -> None:
    """Drop every second node of one output, and casts that nobody reads any more."""
    while True:
        used = outputs | {name for node in graph.node for name in node.input}
        first = {node.output[0]: index for index, node in reversed(list(enumerate(graph.node)))}
        kept = [
            node
            for index, node in enumerate(graph.node)
            if first[node.output[0]] == index and (node.op_type != "Cast" or node.output[0] in used)
        ]
        if len(kept) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(kept)
