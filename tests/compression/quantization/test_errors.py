"""Tests of the table of tensor errors, on a graph whose errors are known."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from mlflow_yolo.compression.quantization.calibration import CalibrationSet
from mlflow_yolo.compression.quantization.errors import tensor_errors, worst_layers
from mlflow_yolo.compression.quantization.static import Observed, write_int8
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import Variant, write_variant

Batches = Callable[[], Iterator[npt.NDArray[np.float32]]]


@pytest.fixture
def chain_folder(tmp_path: Path) -> Path:
    """Return the variant of images -> Conv(x2) -> a -> Sigmoid -> b -> Conv(x3) -> c -> Conv(x5) -> output0."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(np.full((1, 1, 1, 1), value, np.float32), f"w{value}") for value in (2, 3, 5)]
    nodes = [
        helper.make_node("Conv", ["images", "w2"], ["a"], name="/model.0/conv/Conv"),
        helper.make_node("Sigmoid", ["a"], ["b"], name="/model.0/act/Sigmoid"),
        helper.make_node("Conv", ["b", "w3"], ["c"], name="/model.1/cv1/conv/Conv"),
        helper.make_node("Conv", ["c", "w5"], ["output0"], name="/model.2/cv2/Conv"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1, 4, 4]) for name in ("images", "output0")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    folder = tmp_path / "fp32-onnx"
    folder.mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        str(folder / "model.onnx"),
    )
    write_variant(folder, Variant("fp32-onnx", "model.onnx", "detect", ("a",), (4, 4), channels=1, opset=18))
    return folder


def quantize(source: Path, folder: Path, calibration: CalibrationSet, **ranges: tuple[float, float]) -> Path:
    known = {"images": (-1.0, 1.0), "a": (-2.0, 2.0), "b": (0.0, 1.0), "c": (0.0, 3.0), "output0": (0.0, 15.0)}
    write_int8(source, folder, Observed(known | ranges, "minmax", False, calibration), activation="uint8")
    return folder


def test_the_ratio_of_the_input_is_that_of_rounding(
    chain_folder: Path, calibration: CalibrationSet, folder: Path, noise: Batches
) -> None:
    table = tensor_errors(chain_folder, quantize(chain_folder, folder, calibration), noise()).set_index("tensor")
    x = np.concatenate(list(noise())).astype(np.float64)
    scale = np.float64(np.float32(2 / 255))
    zero = round(1 / (2 / 255))
    rounded = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    expected = 10 * np.log10(np.square(x).sum() / np.square(x - rounded).sum())
    assert table.loc["images", "sqnr_db"] == pytest.approx(expected, abs=0.1)
    assert pd.isna(table.loc["images", "block"])
    assert table.loc["images", "layer"] == ""


def test_the_layer_whose_range_is_too_narrow_is_the_worst(
    chain_folder: Path, calibration: CalibrationSet, folder: Path, noise: Batches
) -> None:
    table = tensor_errors(chain_folder, quantize(chain_folder, folder, calibration, c=(0.0, 0.3)), noise())
    assert table["tensor"].iloc[0] == "c"
    assert list(table["sqnr_db"]) == sorted(table["sqnr_db"])
    assert worst_layers(table)[0] == "/model.1/cv1"
    row = table.iloc[0]
    assert (row["node"], row["layer"], row["block"]) == ("/model.1/cv1/conv/Conv", "/model.1/cv1", 1)
    # Nearly all of c = 3 sigmoid(2x) is above .3, to which it is clipped.
    x = 3 / (1 + np.exp(-2 * np.concatenate(list(noise())).astype(np.float64)))
    clipped = np.square(x - np.minimum(x, 0.3)).sum() / np.square(x).sum()
    assert row["noise"] == pytest.approx(clipped, rel=0.02)
    assert row["added_noise"] == pytest.approx(clipped, rel=0.02)


def test_noise_that_came_in_is_not_added(
    chain_folder: Path, calibration: CalibrationSet, folder: Path, noise: Batches
) -> None:
    table = tensor_errors(chain_folder, quantize(chain_folder, folder, calibration, b=(0.0, 0.1)), noise())
    rows = table.set_index("tensor")
    assert rows.loc["c", "noise"] == pytest.approx(rows.loc["b", "noise"], rel=0.05)
    assert rows.loc["c", "added_noise"] < 0.05 * rows.loc["b", "added_noise"]
    assert worst_layers(table)[0] == "/model.0"


def test_only_what_is_quantized_is_in_the_table(
    chain_folder: Path, calibration: CalibrationSet, folder: Path, noise: Batches
) -> None:
    table = tensor_errors(chain_folder, quantize(chain_folder, folder, calibration), noise())
    assert sorted(table["tensor"]) == ["a", "b", "c", "images"]  # output0 is an output, in float


def test_without_inputs_and_of_another_model_there_is_no_table(
    chain_folder: Path, scaled_folder: Path, calibration: CalibrationSet, folder: Path, noise: Batches
) -> None:
    quantized = quantize(chain_folder, folder, calibration)
    with pytest.raises(ArgumentError, match="no inputs"):
        tensor_errors(chain_folder, quantized, [])
    with pytest.raises(ArgumentError, match="was not quantized from"):
        tensor_errors(scaled_folder, quantized, noise())
