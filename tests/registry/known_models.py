"""Variants whose answers are known by hand: graphs of a few nodes, made without torch.

Every model sees only the mean M of its input, in [0, 1]. The detectors say: class 0 at (32, 32), 20 wide and 10 high,
with score M; class 1 at (16, 32), 8 wide and high, with score 0.6; pixels of the 64x64 input, centre and size.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlflow_yolo.variant import Variant, write_variant

NAMES = ("cat", "dog")
IMGSZ = (64, 64)
_BOXES = ((32.0, 32.0, 20.0, 10.0), (16.0, 32.0, 8.0, 8.0))


def make_variant(folder: Path, task: str = "detect", *, marker: str = "", **variant: Any) -> Path:
    """Return the folder of a new variant.

    Args:
        folder: It need not exist.
        task: `detect`, `segment` (each mask fills its box) or `classify` (probabilities M and 1 - M).
        marker: A word in the file: another one makes other bytes of the same model.
        variant: What else is to stand in variant.json.
    """
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    file.write_bytes(make_graph(task, marker=marker).SerializeToString())
    write_variant(
        folder,
        Variant(**{"kind": "fp32-onnx", "file": "model.onnx", "task": task, "names": NAMES, "imgsz": IMGSZ, **variant}),
    )
    return folder


def make_graph(task: str = "detect", *, marker: str = "", metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """Return the graph; see `make_variant`."""
    if task == "classify":
        base, slope = np.array([[0.0, 1.0]]), np.array([[1.0, -1.0]])
    else:
        rows = 4 + len(NAMES) + (task == "segment")
        base, slope = np.zeros((1, rows, 2)), np.zeros((1, rows, 2))
        base[0, :4] = np.array(_BOXES).T
        base[0, 5, 1] = 0.6
        base[0, 6:] = 1.0  # the one prototype counts once
        slope[0, 4, 0] = 1.0
    axes = numpy_helper.from_array(np.arange(1, 4), "axes")
    shape = numpy_helper.from_array(np.array([-1] + [1] * (base.ndim - 1)), "shape")
    constants = [_constant("base", base), _constant("slope", slope), axes, shape]
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "base"], ["output0"]),
    ]
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", *base.shape[1:]])]
    if task == "segment":
        constants += [
            _constant("ones", np.ones((1, 1, 16, 16))),
            numpy_helper.from_array(np.array([-1, 1, 1, 1]), "four"),
        ]
        constants.append(_constant("nought", np.zeros((1, 1, 1, 1))))
        nodes += [
            helper.make_node("Reshape", ["mean", "four"], ["each"]),
            helper.make_node("Mul", ["each", "nought"], ["none"]),
            helper.make_node("Add", ["none", "ones"], ["output1"]),
        ]
        outputs.append(helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["batch", 1, 16, 16]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *IMGSZ])
    graph = helper.make_graph(nodes, "known", [images], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, doc_string=marker)
    helper.set_model_props(model, metadata or {})
    return model


def _constant(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)
