from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.runtime.description import describe
from mlflow_yolo.variant import Variant, digest, write_variant
from tests.runtime.small_models import IMGSZ, SmallModel

METADATA: dict[str, Any] = {
    "task": "detect",
    "names": {0: "cat", 1: "dog"},
    "imgsz": [96, 128],
    "stride": 32,
    "batch": 1,
    "end2end": False,
    "args": {"batch": 1, "dynamic": False, "nms": None},
}


def write_onnx(path: Path, metadata: dict[str, Any], shape: tuple[int | str, ...] = (1, 3, 96, 128)) -> Path:
    """Write a model that returns its input, with metadata as Ultralytics' exporter writes it."""
    entry, output = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "output0"))
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["output0"])], "g", [entry], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
    onnx.save(model, str(path))
    return path


def test_an_export_of_ultralytics_says_what_it_is(small_models: Callable[[str, str], SmallModel]) -> None:
    made = small_models("yolo11n", "segment")
    file, variant = describe(made.onnx)
    assert file == made.onnx
    assert (variant.kind, variant.task, variant.names) == ("fp32-onnx", "segment", ("one", "two", "three", "four"))
    assert (variant.imgsz, variant.stride, variant.channels) == (IMGSZ, 32, 3)
    assert (variant.dynamic, variant.end2end) == (False, False)
    assert variant.sha256 == digest(made.onnx)


def test_a_free_size_keeps_the_one_of_its_export(tmp_path: Path) -> None:
    file = write_onnx(tmp_path / "a.onnx", METADATA, ("batch", 3, "height", "width"))
    variant = describe(file)[1]
    assert (variant.dynamic, variant.imgsz) == (True, (96, 128))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"end2end": True}, {"end2end": True}),
        ({"args": {"nms": True}}, {"end2end": True}),
        ({"args": {"quantize": 8, "opset": 17}}, {"kind": "int8-onnx", "opset": 17}),
        ({"args": {"quantize": 16}}, {"kind": "fp16-onnx"}),
        ({"names": {1: "b", 0: "a: it's"}}, {"names": ("a: it's", "b")}),
        ({"channels": 1}, {"channels": 1}),
    ],
)
def test_what_the_metadata_says_is_what_it_is(tmp_path: Path, change: dict, expected: dict) -> None:
    variant = describe(write_onnx(tmp_path / "a.onnx", METADATA | change))[1]
    assert {name: getattr(variant, name) for name in expected} == expected


@pytest.mark.parametrize("lacking", ["task", "names", "stride"])
def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path, lacking: str) -> None:
    file = write_onnx(tmp_path / "a.onnx", {name: value for name, value in METADATA.items() if name != lacking})
    with pytest.raises(CheckpointError, match=rf"^[^\n]*a\.onnx[^\n]*{lacking}[^\n]*$"):
        describe(file)


@pytest.mark.parametrize("change", [{"names": {0: "a", 2: "b"}}, {"stride": "wide"}, {"args": "text"}])
def test_metadata_that_makes_no_sense_is_refused(tmp_path: Path, change: dict) -> None:
    with pytest.raises(CheckpointError, match=r"^[^\n]*a\.onnx[^\n]*$"):
        describe(write_onnx(tmp_path / "a.onnx", METADATA | change))


def test_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="task=pose"):
        describe(write_onnx(tmp_path / "a.onnx", METADATA | {"task": "pose"}))


@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^[^\n]*a\.onnx[^\n]*$"):
        describe(tmp_path / "a.onnx")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "missing.onnx"):
        with pytest.raises(CheckpointError, match=path.name):
            describe(path)


@pytest.fixture
def openvino_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a_openvino_model"
    folder.mkdir()
    (folder / "a.xml").write_text("<net/>")
    (folder / "metadata.yaml").write_text(yaml.safe_dump(METADATA))
    return folder


def test_an_openvino_folder_and_its_xml_mean_the_folder(openvino_folder: Path) -> None:
    for path in (openvino_folder, openvino_folder / "a.xml"):
        file, variant = describe(path)
        assert file == openvino_folder
        assert (variant.kind, variant.names, variant.imgsz) == ("fp32-openvino", ("cat", "dog"), (96, 128))


@pytest.mark.parametrize("content", ["", "a: [", "- 1"])
def test_an_openvino_folder_with_damaged_metadata_is_refused(openvino_folder: Path, content: str) -> None:
    (openvino_folder / "metadata.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=r"metadata\.yaml|a_openvino_model"):
        describe(openvino_folder)


def test_a_variant_is_found_by_its_folder_its_json_and_its_file(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx", {})
    given = Variant(kind="int8-onnx", file="model.onnx", task="detect", names=("cat",), imgsz=(96, 128))
    written = write_variant(tmp_path, given)
    for path in (tmp_path, tmp_path / "variant.json", tmp_path / "model.onnx"):
        assert describe(path) == (tmp_path / "model.onnx", written)


def test_a_variant_with_a_changed_byte_is_refused_by_whatever_name(tmp_path: Path) -> None:
    file = write_onnx(tmp_path / "model.onnx", {})
    write_variant(tmp_path, Variant(kind="int8-onnx", file="model.onnx", task="detect", names=("a",), imgsz=(96, 128)))
    file.write_bytes(file.read_bytes() + b"\0")
    for path in (tmp_path, file):
        with pytest.raises(CheckpointError, match="changed"):
            describe(path)
