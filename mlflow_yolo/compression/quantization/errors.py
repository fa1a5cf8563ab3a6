"""How much of every tensor is left after quantization, and which layers lose it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.compression.quantization.activations import open_with_tensors
from mlflow_yolo.compression.quantization.graph import block_of, layer_of
from mlflow_yolo.compression.quantization.static import prepared
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import read_variant

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

COLUMNS = ("tensor", "node", "layer", "block", "sqnr_db", "noise", "added_noise")


def tensor_errors(fp32: Path, int8: Path, batches: Iterable[npt.NDArray[np.float32]]) -> pd.DataFrame:
    """Return the signal-to-quantization-noise ratio of every quantized tensor, the worst first.

    Args:
        fp32: Folder of the float32 variant.
        int8: Folder of the variant quantized from it.
        batches: Inputs, (1, C, H, W) each; a few dozen are enough.

    Returns:
        A row per quantized activation: `tensor`; the `node` that makes it, its `layer` and `block` (None for the
        input); `sqnr_db` = 10 log10(sum x² / sum (x - q)²) over all inputs, where x is the tensor in the float model
        and q in the quantized one, infinite where they are equal; `noise` = sum (x - q)² / sum x²; `added_noise`, what
        of it the noisiest tensor that goes into the node does not explain.

    Raises:
        ArgumentError: There are no inputs, or the two variants are not of one graph.
        CheckpointError: One cannot be read.

    Source: the ratio is ONNX Runtime's (`onnxruntime.quantization.qdq_loss_debug`); `added_noise` is ours.
    """
    import onnx

    source, quantized = read_variant(fp32), read_variant(int8)
    pairs = _quantized_tensors(onnx.load(str(int8 / quantized.file)).graph)
    with prepared(fp32, source) as file:
        graph = onnx.load(str(file)).graph
        known = {name for node in graph.node for name in node.output} | {entry.name for entry in graph.input}
        if not pairs or not known.issuperset(pairs):
            raise ArgumentError(f"{int8} was not quantized from {fp32}: their tensors differ. Name its own source.")
        noise = _noise(file, int8 / quantized.file, pairs, batches)
    return _table(graph, noise)


def worst_layers(errors: pd.DataFrame) -> list[str]:
    """Return the layers of a table of errors by the noise that they add, the worst first."""
    inner = errors[errors["layer"] != ""]
    totals = inner.groupby("layer", sort=False)["added_noise"].max()
    return [str(name) for name in totals.sort_values(ascending=False, kind="stable").index]


def _quantized_tensors(graph: "GraphProto") -> dict[str, str]:
    """Return, by the tensor that is quantized, the tensor of what remains of it."""
    constants = {constant.name for constant in graph.initializer}
    back = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.input[0]: back[node.output[0]]
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants and node.output[0] in back
    }


def _noise(
    fp32: Path, int8: Path, pairs: Mapping[str, str], batches: Iterable[npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Return sum (x - q)² / sum x² of every tensor."""
    reference, other = open_with_tensors(fp32, list(pairs)), open_with_tensors(int8, list(pairs.values()))
    (entry,) = reference.get_inputs()
    inner = [name for name in pairs if name != entry.name]
    power, error, n = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0), 0
    for batch in batches:
        feed = {entry.name: batch}
        exact = {**dict(zip(inner, reference.run(inner, feed), strict=True)), entry.name: batch}
        rounded = other.run(list(pairs.values()), feed)
        for name, values in zip(pairs, rounded, strict=True):
            power[name] += float(np.square(exact[name], dtype=np.float64).sum())
            error[name] += float(np.square(np.subtract(exact[name], values, dtype=np.float64)).sum())
        n += 1
    if not n:
        raise ArgumentError("there are no inputs to measure the errors on. Pass one or more.")
    return {name: _ratio(error[name], power[name]) for name in pairs}


def _ratio(error: float, power: float) -> float:
    if power > 0:
        return error / power
    return 0.0 if error == 0 else float("inf")


def _table(graph: "GraphProto", noise: Mapping[str, float]) -> pd.DataFrame:
    makers = {output: node for node in graph.node for output in node.output}
    rows = []
    for tensor, ratio in noise.items():
        node = makers.get(tensor)
        name = node.name if node is not None else ""
        before = _noise_before(node, noise) if node is not None else 0.0
        added = max(ratio - before, 0.0) if np.isfinite(ratio) else ratio
        sqnr_db = -10 * float(np.log10(ratio)) if ratio > 0 else float("inf")
        rows.append((tensor, name, layer_of(name) if name else "", block_of(name), sqnr_db, ratio, added))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"block": "Int64"})
    return table.sort_values(["sqnr_db", "tensor"], kind="stable", ignore_index=True)


def _noise_before(node: "NodeProto", noise: Mapping[str, float]) -> float:
    """Return the noise of the noisiest tensor that goes into a node."""
    return max((noise[name] for name in node.input if name in noise), default=0.0)
