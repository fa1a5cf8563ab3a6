import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest

import mlflow_yolo
from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.compression.quantization.calibration import CalibrationSet, calibration_set, choose_calibration
from mlflow_yolo.compression.quantization.openvino import MODEL_FOLDER, convert_openvino, quantize_nncf
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.pipeline import open_pipeline
from mlflow_yolo.runtime.scoring import samples_of
from mlflow_yolo.variant import read_variant, size_mb
from tests.runtime.small_models import make_model

HEADS = {"yolov8n": "/model.22/", "yolo11n": "/model.23/", "yolo26n": "/model.23/"}
"""Prefix of the head's nodes: the last block of each version's yaml."""


@pytest.fixture(autouse=True)
def _parts(missing: Callable[[str, str], NoReturn]) -> None:
    try:
        import openvino  # noqa: F401
    except ImportError:
        missing("openvino", "Install it: pip install 'mlflow-yolo[openvino]'.")


@pytest.fixture
def _nncf(missing: Callable[[str, str], NoReturn]) -> None:
    from mlflow_yolo.compression.quantization.quiet_nncf import quiet_nncf

    try:
        with quiet_nncf():
            pass
    except ArgumentError:
        missing("nncf", "Install it: pip install 'mlflow-yolo[openvino]'.")


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function (version) that exports a small model's fp32-onnx variant once a session."""
    made: dict[str, Path] = {}

    def get(version: str) -> Path:
        if version not in made:
            model = make_model(version, "detect", tmp_path_factory.mktemp(f"model-{version}"))
            made[version] = tmp_path_factory.mktemp(f"fp32-{version}")
            export_onnx(model.checkpoint, made[version], imgsz=(96, 128))
        return made[version]

    return get


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSet:
    """Return four images of blurred noise."""
    folder, generator = tmp_path_factory.mktemp("calibration"), np.random.default_rng(0)
    files = [folder / f"{index}.png" for index in range(4)]
    for file in files:
        cv2.imwrite(str(file), cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), (128, 96)))
    return calibration_set(files, root=folder, split="train")


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def outputs(path: Path, n: int = 1) -> Any:
    images = np.random.default_rng(1).random((n, 3, 96, 128), dtype=np.float32)
    return open_pipeline(path, threads=1).infer(images)[0]


def layers(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and weight type of every convolution of a saved model."""
    import openvino

    for node in openvino.Core().read_model(str(path / MODEL_FOLDER / "model.xml")).get_ordered_ops():
        if "Convolution" in node.get_type_name():
            source = node.input_value(1).get_node()
            while source.get_type_name() != "Constant":
                source = source.input_value(0).get_node()
            yield node.get_friendly_name(), source.get_element_type().get_type_name()


@pytest.mark.parametrize("version", HEADS)
def test_fp32_openvino_equals_the_onnx_file(sources: Callable[[str], Path], tmp_path: Path, version: str) -> None:
    source = sources(version)
    variant = convert_openvino(source, tmp_path, precision="fp32")
    assert variant == read_variant(tmp_path)
    assert (variant.kind, variant.opset, variant.runtime) == (
        "fp32-openvino",
        None,
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    parent = read_variant(source)
    assert variant.sources == {**parent.sources, "onnx_sha256": parent.sha256}
    assert (variant.names, variant.imgsz, variant.stride) == (parent.names, parent.imgsz, parent.stride)
    ours, theirs = outputs(tmp_path, 2), outputs(source, 2)
    assert theirs[:, 4:].std() > 0.01
    assert np.abs(ours[:, 4:] - theirs[:, 4:]).max() <= 1e-4
    assert np.abs(ours[:, :4] - theirs[:, :4]).max() <= 1e-4 * 128  # boxes are in pixels of a 128-pixel image


def test_bf16_is_half_the_size_and_near_the_onnx_file(sources: Callable[[str], Path], tmp_path: Path) -> None:
    source = sources("yolo11n")
    variant = convert_openvino(source, tmp_path, precision="bf16")
    assert (variant.kind, variant.runtime) == ("bf16-openvino", {"INFERENCE_PRECISION_HINT": "bf16"})
    assert {kind for _, kind in layers(tmp_path)} == {"f16"}
    ours, theirs = outputs(tmp_path), outputs(source)
    assert np.abs(ours[:, 4:] - theirs[:, 4:]).max() <= 0.1  # bf16 has 8 bits of mantissa, over some hundred layers


@pytest.mark.usefixtures("_nncf")
@pytest.mark.parametrize("version", HEADS)
def test_int8_has_8_bit_weights_everywhere_but_in_the_head(
    sources: Callable[[str], Path], calibration: CalibrationSet, tmp_path: Path, version: str
) -> None:
    variant = quantize_nncf(sources(version), tmp_path, calibration=calibration)
    assert variant == read_variant(tmp_path)
    assert variant.kind == "int8-openvino"
    assert variant.sources["calibration"]["sha256"] == calibration.sha256
    assert variant.sources["quantization"]["head"] == HEADS[version]
    assert variant.sources["quantization"]["float_layers"] == []
    kinds = dict(layers(tmp_path))
    assert {kind for name, kind in kinds.items() if name.startswith(HEADS[version])} == {"f32"}
    assert {kind for name, kind in kinds.items() if not name.startswith(HEADS[version])} <= {"i8", "u8"}
    assert len(np.unique(outputs(tmp_path)[0, 4:])) > 256  # more than 8 bits can tell apart: the head is not in int8


@pytest.mark.slow
@pytest.mark.usefixtures("_nncf")
def test_int8_loses_less_than_two_points_on_the_embedded_digits(tmp_path: Path) -> None:
    """Untrained models say nothing of accuracy: their scores hang on differences that eight bits do not hold."""
    dataset = mlflow_yolo.load_dataset("digits")
    export_onnx("digits", folder(tmp_path / "fp32"), imgsz=128)
    quantize_nncf(tmp_path / "fp32", folder(tmp_path / "int8"), calibration=choose_calibration(dataset, 50))
    fp32, int8 = (
        evaluate(samples_of(open_pipeline(tmp_path / name, threads=1), dataset, "val"), n_classes=10).map50_95
        for name in ("fp32", "int8")
    )
    assert fp32 > 0.5
    assert int8 > fp32 - 0.02


@pytest.mark.slow
@pytest.mark.usefixtures("_nncf")
def test_accuracy_control_returns_layers_to_float_until_the_drop_holds(
    sources: Callable[[str], Path], calibration: CalibrationSet, tmp_path: Path
) -> None:
    """The accuracy here falls by one with every int8 layer, and all but five may be lost."""
    seen: list[tuple[str, int]] = []

    def measure(path: Path) -> float:
        variant = read_variant(path)
        n_int8 = sum(kind in ("i8", "u8") or quantized for _, kind, quantized in weights(path))
        seen.append((variant.kind, n_int8))
        print("evaluated")
        return 100.0 - n_int8

    total = sum(not name.startswith("/model.23/") for name, _ in layers_of_onnx(sources("yolo11n"), tmp_path / "fp32"))
    variant = quantize_nncf(
        sources("yolo11n"), folder(tmp_path / "int8"), calibration=calibration, evaluate=measure, max_drop=total - 5.0
    )
    control = variant.sources["quantization"]["accuracy_control"]
    assert seen[0] == ("fp32-openvino", 0)
    assert seen[1] == ("int8-openvino", total)
    assert control["fp32"] == 100
    assert control["holds"]
    assert control["int8"] >= 100 - (total - 5)
    assert control["n_evaluations"] == len(seen)
    assert len(variant.sources["quantization"]["float_layers"]) >= 5


def weights(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield name, weight type and whether the weights pass a FakeQuantize, for every convolution."""
    import openvino

    for node in openvino.Core().read_model(str(path / MODEL_FOLDER / "model.xml")).get_ordered_ops():
        if "Convolution" in node.get_type_name():
            source, quantized = node.input_value(1).get_node(), False
            while source.get_type_name() != "Constant":
                quantized |= source.get_type_name() == "FakeQuantize"
                source = source.input_value(0).get_node()
            yield node.get_friendly_name(), source.get_element_type().get_type_name(), quantized


def layers_of_onnx(source: Path, made: Path) -> list[tuple[str, str]]:
    convert_openvino(source, folder(made), precision="fp32")
    return list(layers(made))


@pytest.mark.usefixtures("_nncf")
def test_nothing_is_printed_logged_or_reported_and_everything_is_as_before(
    sources: Callable[[str], Path],
    calibration: CalibrationSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from nncf.telemetry import decorator

    home = folder(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home))
    calls: list[str] = []

    class Sender:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **kwargs: calls.append(name)

    sender = Sender()
    monkeypatch.setattr(decorator, "telemetry", sender)
    before = (logging.getLoggerClass(), logging.getLogger("nncf").level, sys.modules.get("openvino_telemetry"))
    quantize_nncf(sources("yolo11n"), folder(tmp_path / "int8"), calibration=calibration)
    assert capfd.readouterr() == ("", "")
    assert calls == []
    assert list(home.iterdir()) == []
    assert decorator.telemetry is sender
    after = (logging.getLoggerClass(), logging.getLogger("nncf").level, sys.modules.get("openvino_telemetry"))
    assert after == before


def test_an_unknown_precision_and_another_kind_are_named(sources: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="precision=fp8"):
        convert_openvino(sources("yolo11n"), tmp_path, precision="fp8")
    made = folder(tmp_path / "fp32")
    convert_openvino(sources("yolo11n"), made, precision="fp32")
    with pytest.raises(ArgumentError, match="fp32-openvino"):
        convert_openvino(made, folder(tmp_path / "again"), precision="bf16")
    with pytest.raises(CheckpointError, match=r"variant\.json"):
        convert_openvino(folder(tmp_path / "empty"), folder(tmp_path / "third"), precision="bf16")


def test_accuracy_control_needs_measure_and_drop(
    sources: Callable[[str], Path], calibration: CalibrationSet, tmp_path: Path
) -> None:
    source = sources("yolo11n")
    with pytest.raises(ArgumentError, match="evaluate and max_drop"):
        quantize_nncf(source, tmp_path, calibration=calibration, max_drop=0.01)
    for drop in (-0.1, float("nan")):
        with pytest.raises(ArgumentError, match=f"max_drop={drop}"):
            quantize_nncf(source, tmp_path, calibration=calibration, evaluate=lambda path: 1.0, max_drop=drop)


@pytest.mark.usefixtures("_nncf")
def test_an_accuracy_that_is_no_number_is_an_error(
    sources: Callable[[str], Path], calibration: CalibrationSet, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="nan"):
        quantize_nncf(
            sources("yolo11n"), tmp_path, calibration=calibration, evaluate=lambda path: float("nan"), max_drop=0.01
        )


@pytest.mark.parametrize("module", ["openvino", "nncf"])
def test_a_missing_package_names_the_extra(
    sources: Callable[[str], Path],
    calibration: CalibrationSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    source = sources("yolo11n")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ArgumentError, match=r"pip install 'mlflow-yolo\[openvino\]'"):
        quantize_nncf(source, tmp_path, calibration=calibration)


def test_size_of_bf16_is_about_half(sources: Callable[[str], Path], tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        convert_openvino(sources("yolov8n"), folder(tmp_path / precision), precision=precision)
    fp32, bf16 = (size_mb(tmp_path / precision / MODEL_FOLDER / "model.bin") for precision in ("fp32", "bf16"))
    assert bf16 == pytest.approx(fp32 / 2, rel=0.05)
