"""The tensors inside an ONNX model, and their values."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime


def float_tensors(model: Path) -> tuple[str, ...]:
    """Return the inputs and intermediate tensors of a model whose shapes were inferred that hold float32."""
    import onnx

    graph = onnx.load(str(model)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output, *graph.input]}
    names = [entry.name for entry in graph.input] + [name for node in graph.node for name in node.output]
    return tuple(name for name in names if kinds.get(name) == onnx.TensorProto.FLOAT)


def open_with_tensors(model: Path, names: Collection[str]) -> "onnxruntime.InferenceSession":
    """Return a session of the model, unchanged but that the named tensors are outputs too.

    The graph is run as it is written: fused nodes would have no such tensors.
    """
    import onnx
    import onnxruntime

    graph = onnx.load(str(model))
    present = {output.name for output in graph.graph.output}
    inputs = {entry.name for entry in graph.graph.input}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present | inputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
