"""One exported model for all tests of quantization, and small graphs written by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.compression.quantization.calibration import CalibrationSet, choose_calibration
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.variant import Variant, making, write_variant

Images = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shipped digits detector as float32 ONNX at 64 pixels; no test may change it."""
    directory = tmp_path_factory.mktemp("fp32") / "fp32-onnx"
    with making(directory) as folder:
        export_onnx("digits", folder, imgsz=64)
    return directory


@pytest.fixture(scope="session")
def dataset(small_data: Path) -> Dataset:
    """Return a data set of eight training images of 64 pixels."""
    return load_dataset(small_data)


@pytest.fixture(scope="session")
def calibration(dataset: Dataset) -> CalibrationSet:
    """Return its training images."""
    return choose_calibration(dataset)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    path = tmp_path / "variant"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def scaled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the variant of a graph of two 1x1 convolutions, 2x and then 3x, with a rectifier between."""
    directory = tmp_path_factory.mktemp("scaled") / "fp32-onnx"
    with making(directory) as folder:
        onnx.save(scaled_model(), str(folder / "model.onnx"))
        write_variant(
            folder,
            Variant(
                "fp32-onnx", "model.onnx", "detect", ("a",), (4, 4), channels=1, opset=18, sources={"checkpoint": "x"}
            ),
        )
    return directory


def scaled_model() -> onnx.ModelProto:
    """Return images -> Conv(x2) -> Relu -> Conv(x3) -> output0, named as Ultralytics names its blocks."""
    weights = [numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), f"w{value}") for value in (2, 3)]
    nodes = [
        helper.make_node("Conv", ["images", "w2"], ["a"], name="/model.0/conv/Conv"),
        helper.make_node("Relu", ["a"], ["b"], name="/model.0/act/Relu"),
        helper.make_node("Conv", ["b", "w3"], ["output0"], name="/model.1/cv2/Conv"),
    ]
    shape = [None, 1, 4, 4]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "output0")]
    graph = helper.make_graph(nodes, "scaled", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def noise() -> Callable[[], Iterator[Images]]:
    """Return a function that gives the same three inputs of `scaled_folder` each time."""

    def inputs() -> Iterator[Images]:
        random = np.random.default_rng(0)
        for _ in range(3):
            yield random.uniform(-1, 1, (1, 1, 4, 4)).astype(np.float32)

    return inputs
