"""Tests of static int8, half precision and dynamic int8."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from mlflow_yolo.compression.quantization.calibration import CalibrationSet
from mlflow_yolo.compression.quantization.dynamic import quantize_dynamic
from mlflow_yolo.compression.quantization.graph import head_nodes, output_nodes
from mlflow_yolo.compression.quantization.half import convert_half
from mlflow_yolo.compression.quantization.static import Observed, number_formats, quantize_static, write_int8
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.variant import read_variant


def graph_of(folder: Path) -> onnx.GraphProto:
    return onnx.load(str(folder / "model.onnx")).graph


def run(folder: Path, images: Any) -> Any:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.fixture(scope="module")
def int8_folder(float_folder: Path, calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    quantize_static(float_folder, folder, calibration=calibration, activation="uint8")
    return folder


def test_weights_are_signed_and_per_channel_and_activations_unsigned(int8_folder: Path) -> None:
    graph = graph_of(int8_folder)
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert nodes
    assert {constants[node.input[2]].data_type for node in nodes} == {TensorProto.UINT8}
    weights = [name for name, constant in constants.items() if constant.data_type == TensorProto.INT8 and constant.dims]
    convolutions = [name for name in weights if len(constants[name].dims) == 4]
    assert len(convolutions) > 50
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in convolutions:
            assert list(constants[node.input[1]].dims) == [constants[node.input[0]].dims[0]]


def test_the_outputs_stay_in_float(int8_folder: Path, float_folder: Path) -> None:
    kept = set(output_nodes(graph_of(float_folder)))
    graph = graph_of(int8_folder)
    constants = {constant.name: constant for constant in graph.initializer}
    assert {node.name for node in graph.node} >= kept
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.name in kept and node.op_type == "Conv":
            assert constants[node.input[1]].data_type == TensorProto.FLOAT
        elif node.name in kept:
            assert all(made[name].op_type != "DequantizeLinear" for name in node.input if name in made)
    assert [made[output.name].op_type for output in graph.output] == ["Concat"]


def test_the_scores_keep_their_resolution(int8_folder: Path, float_folder: Path, calibration: CalibrationSet) -> None:
    from PIL import Image

    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in calibration.files[:3]])
    images = (pixels.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    exact, rounded = run(float_folder, images), run(int8_folder, images)
    assert len(np.unique(rounded[:, 4:])) > 1000  # naive int8 has one to 256
    assert np.abs(exact[:, :4] - rounded[:, :4]).max() < 6
    assert np.abs(exact[:, 4:] - rounded[:, 4:]).max() < 0.3
    assert not np.array_equal(exact, rounded)


def test_a_kept_head_is_wholly_in_float(float_folder: Path, calibration: CalibrationSet, folder: Path) -> None:
    variant = quantize_static(float_folder, folder, calibration=calibration, keep_head=True)
    head = set(head_nodes(graph_of(float_folder)))
    graph = graph_of(folder)
    constants = {constant.name: constant.data_type for constant in graph.initializer}
    convolutions = [node for node in graph.node if node.name in head and node.op_type == "Conv"]
    assert {constants[node.input[1]] for node in convolutions} == {TensorProto.FLOAT}
    assert variant.sources["quantization"]["keep_head"] is True


def test_the_variant_says_how_and_on_what_it_was_quantized(
    int8_folder: Path, float_folder: Path, calibration: CalibrationSet
) -> None:
    variant, source = read_variant(int8_folder), read_variant(float_folder)
    assert variant.kind == "int8-onnx"
    assert (variant.names, variant.imgsz, variant.task) == (source.names, source.imgsz, source.task)
    assert variant.sources["fp32_sha256"] == source.sha256
    assert variant.sources["calibration"] == {
        "split": "train",
        "n": 8,
        "sha256": calibration.sha256,
        "files": list(calibration.names),
    }
    how = variant.sources["quantization"]
    assert (how["method"], how["symmetric"], how["activation"], how["excluded"]) == ("minmax", False, "uint8", [])
    metadata = {entry.key: entry.value for entry in onnx.load(str(int8_folder / "model.onnx")).metadata_props}
    assert metadata["task"] == "detect"  # Ultralytics' predict reads it


def test_a_known_range_gives_the_known_scale(scaled_folder: Path, calibration: CalibrationSet, folder: Path) -> None:
    # (-51, 204) in 255 steps: a step of 1 and the zero at 51. Symmetric: (-204, 204), the zero at 128 of 127 steps up.
    ranges = {"images": (-51.0, 204.0), "a": (0.0, 1.0), "b": (0.0, 1.0), "output0": (0.0, 1.0)}
    write_int8(scaled_folder, folder, Observed(ranges, "minmax", False, calibration), activation="uint8")
    assert scale_and_zero(folder) == (pytest.approx(1), 51)
    output = run(folder, np.full((2, 1, 4, 4), 0.4, np.float32))
    np.testing.assert_allclose(output, 0)  # .4 is rounded to step 0


def scale_and_zero(folder: Path) -> tuple[float, int]:
    """Return scale and zero point of the input."""
    graph = graph_of(folder)
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    (node,) = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images"]
    return float(constants[node.input[1]]), int(constants[node.input[2]])


def test_a_symmetric_range_has_its_zero_in_the_middle(
    scaled_folder: Path, calibration: CalibrationSet, folder: Path
) -> None:
    ranges = {"images": (-51.0, 204.0), "a": (0.0, 1.0), "b": (0.0, 1.0), "output0": (0.0, 1.0)}
    write_int8(scaled_folder, folder, Observed(ranges, "minmax", True, calibration), activation="int8")
    assert scale_and_zero(folder) == (pytest.approx(204 / 127, rel=0.01), 0)


def test_an_excluded_node_stays_in_float(scaled_folder: Path, calibration: CalibrationSet, folder: Path) -> None:
    ranges = dict.fromkeys(("images", "a", "b", "output0"), (-1.0, 1.0))
    nodes = ["/model.0/conv/Conv", "/model.0/act/Relu"]
    variant = write_int8(scaled_folder, folder, Observed(ranges, "minmax", False, calibration), exclude=nodes)
    assert {node.op_type for node in graph_of(folder).node} == {"Conv", "Relu"}
    assert variant.sources["quantization"]["excluded"] == nodes


@pytest.mark.parametrize(
    ("isa", "activation", "reduce_range"),
    [
        ("amx", "uint8", False),
        ("avx512_vnni", "uint8", False),
        ("avx_vnni", "uint8", False),
        ("avx512", "uint8", True),
        ("avx2", "uint8", True),
        ("neon", "int8", False),
        ("neon_i8mm", "int8", False),
        ("arm64", "int8", False),
    ],
)
def test_number_formats_follow_the_processor(isa: str, activation: str, reduce_range: bool) -> None:
    formats = number_formats(isa)
    assert (formats.activation, formats.reduce_range) == (activation, reduce_range)
    assert number_formats(isa, "int8").activation == "int8"


def test_what_cannot_be_quantized_is_refused(
    float_folder: Path, calibration: CalibrationSet, folder: Path, int8_folder: Path
) -> None:
    with pytest.raises(ArgumentError, match="activation=int4"):
        number_formats("avx2", "int4")
    with pytest.raises(ArgumentError, match="method=guess"):
        quantize_static(float_folder, folder, calibration=calibration, method="guess")
    with pytest.raises(ArgumentError, match="int8-onnx"):
        quantize_static(int8_folder, folder, calibration=calibration)
    with pytest.raises(ArgumentError, match=r"exclude=/model\.99/Conv"):
        write_int8(float_folder, folder, Observed({}, "minmax", False, calibration), exclude=["/model.99/Conv"])
    with pytest.raises(CheckpointError):
        quantize_static(folder, folder, calibration=calibration)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("opset", [9, 21])
def test_an_operator_set_without_int8_is_refused(
    float_folder: Path, calibration: CalibrationSet, folder: Path, tmp_path: Path, opset: int
) -> None:
    import json

    shutil.copytree(float_folder, tmp_path / "source")
    file = tmp_path / "source" / "variant.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"opset": opset}))
    with pytest.raises(ArgumentError, match=f"opset={opset}"):
        quantize_static(tmp_path / "source", folder, calibration=calibration)


def test_half_precision_halves_the_file_and_keeps_the_outputs(float_folder: Path, folder: Path) -> None:
    variant = convert_half(float_folder, folder)
    images = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    exact, rounded = run(float_folder, images), run(folder, images)
    assert variant.kind == "fp16-onnx"
    assert (folder / "model.onnx").stat().st_size < 0.6 * (float_folder / "model.onnx").stat().st_size
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded[:, 4:], exact[:, 4:], atol=0.01)
    np.testing.assert_allclose(rounded[:, :4], exact[:, :4], atol=0.5)
    assert not np.array_equal(rounded, exact)
    onnx.checker.check_model(onnx.load(str(folder / "model.onnx")))


def test_boxes_of_half_precision_are_decoded_in_single(float_folder: Path, folder: Path) -> None:
    convert_half(float_folder, folder)
    boxes = run(folder, np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32))[:, :4]
    assert not np.array_equal(boxes, boxes.astype(np.float16).astype(np.float32))


def test_dynamic_int8_runs_and_keeps_the_outputs_in_float(
    float_folder: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    variant = quantize_dynamic(float_folder, folder)
    assert capfd.readouterr() == ("", "")
    images = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    assert variant.kind == "dynamic-int8-onnx"
    assert run(folder, images).shape == run(float_folder, images).shape
    names = set(output_nodes(graph_of(float_folder)))
    kinds = {node.op_type for node in graph_of(folder).node if node.name in names}
    assert "Conv" in kinds
    assert any(node.op_type == "ConvInteger" for node in graph_of(folder).node)


def test_other_precisions_start_from_float(int8_folder: Path, folder: Path) -> None:
    for make in (convert_half, quantize_dynamic):
        with pytest.raises(ArgumentError, match="int8-onnx"):
            make(int8_folder, folder)
