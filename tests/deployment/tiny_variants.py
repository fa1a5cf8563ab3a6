"""Variants whose answers can be worked out by hand: a grid of 4 by 4 cells, a class for each colour.

The score of a class in a cell is the mean of that colour there, and the box of a cell is a square of `side` pixels
around its middle, so that an answer tells which variant has computed it.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from mlflow_yolo.runtime.pipeline import Pipeline
from mlflow_yolo.variant import Variant, write_variant

IMGSZ, CELL = 32, 8
NAMES = ("red", "green", "blue")


def tiny_variant(folder: Path, *, side: int = 8, task: str = "detect", batch: int | str = "n", **about: Any) -> Path:
    """Write a variant and return its folder; `about` goes into its `variant.json`."""
    folder.mkdir(parents=True)
    onnx.save(_graph(side, batch), str(folder / "model.onnx"))
    write_variant(folder, Variant("fp32-onnx", "model.onnx", task, NAMES, (IMGSZ, IMGSZ), **about))
    return folder


def tiny_openvino_variant(folder: Path, *, side: int = 8) -> Path:
    """Write the same model as an OpenVINO variant."""
    import openvino

    (folder / "model_openvino").mkdir(parents=True)
    onnx.save(_graph(side, "n"), str(folder / "model.onnx"))
    model = openvino.Core().read_model(str(folder / "model.onnx"))
    openvino.save_model(model, str(folder / "model_openvino" / "model.xml"), compress_to_fp16=False)
    (folder / "model.onnx").unlink()
    write_variant(folder, Variant("fp32-openvino", "model_openvino", "detect", NAMES, (IMGSZ, IMGSZ)))
    return folder


def picture(*colours: tuple[int, int, str], width: int = IMGSZ, height: int = IMGSZ) -> bytes:
    """Return a black PNG with cells (row, column, colour) in full colour."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for row, column, colour in colours:
        cell = slice(row * CELL, (row + 1) * CELL), slice(column * CELL, (column + 1) * CELL)
        pixels[*cell, NAMES.index(colour)] = 255
    return png(pixels)


def noise(seed: int, *, width: int = 45, height: int = 33) -> bytes:
    """Return a PNG of noise in which much is found."""
    return png(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(pixels: np.ndarray) -> bytes:
    """Return RGB pixels as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


class WatchedPipeline(Pipeline):
    """A pipeline that calls a function before each inference; what it raises, the inference raises."""

    def __init__(self, pipeline: Pipeline, before: Callable[[np.ndarray], object]) -> None:
        super().__init__(pipeline.variant, pipeline.session)
        self._before = before

    def infer(self, batch: np.ndarray) -> Sequence[np.ndarray]:
        self._before(batch)
        return super().infer(batch)


def _graph(side: int, batch: int | str) -> onnx.ModelProto:
    centres = np.arange(CELL / 2, IMGSZ, CELL, dtype=np.float32)
    y, x = np.meshgrid(centres, centres, indexing="ij")
    boxes = np.stack([x.ravel(), y.ravel(), np.full(16, side, np.float32), np.full(16, side, np.float32)])[None]
    constants = [
        helper.make_tensor("boxes", TensorProto.FLOAT, boxes.shape, boxes.ravel()),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("flat", TensorProto.INT64, [3], [0, 3, 16]),
    ]
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["cells", "flat"], ["scores"]),
        helper.make_node("ReduceMean", ["scores"], ["means"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["means", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], axis=1),
    ]
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, IMGSZ, IMGSZ])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 7, 16])
    graph = helper.make_graph(nodes, "grid", [entry], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
