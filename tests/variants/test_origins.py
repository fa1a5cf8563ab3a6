import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from mlflow_yolo import checkpoints
from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.variant import digest
from mlflow_yolo.variants.comparison import Entry
from mlflow_yolo.variants.origins import further_tags, operating_tags, origin_tags, teacher_tags
from tests.variants.made import a_variant


def test_a_quantized_and_pruned_variant_says_how_and_on_what() -> None:
    sources = {
        "checkpoint": "pruned.pt",
        "checkpoint_sha256": "ab",
        "fp32_sha256": "cd",
        "data": "f00d",
        "quantization": {"method": "minmax", "activation": "uint8", "weight": "int8", "excluded": ["a", "b"]},
        "calibration": {"split": "train", "n": 200, "sha256": "ef", "files": ["x.jpg"] * 200},
        "accuracy_control": {"holds": False},
        "pruning": {"prune.method": "structured", "prune.ratio": ""},
        "distillation": {"kd.teacher": "big.pt"},
    }
    assert origin_tags(a_variant("int8-onnx", sources=sources)) == {
        "quant.method": "minmax",
        "quant.activation": "uint8",
        "quant.weight": "int8",
        "quant.excluded": '["a", "b"]',
        "quant.holds": "false",
        "quant.calib_sha": "ef",
        "quant.calib_n": "200",
        "quant.calib_split": "train",
        "prune.method": "structured",
        "kd.teacher": "big.pt",
        "lineage.checkpoint": "pruned.pt",
        "lineage.checkpoint_sha256": "ab",
        "lineage.made_from_sha256": "cd",
        "lineage.data": "f00d",
    }


def test_what_does_not_apply_is_left_out_and_nothing_excluded_is_said() -> None:
    assert origin_tags(a_variant("fp32-onnx")) == {}
    assert origin_tags(a_variant("int8-onnx", sources={"quantization": {"method": "dynamic"}})) == {
        "quant.method": "dynamic",
        "quant.excluded": "none",
    }
    assert origin_tags(a_variant("fp32-onnx", sources={"pruning": "broken"})) == {}


def test_an_operating_point_is_text_and_its_classes_are_json() -> None:
    found = operating_tags({"conf": 0.25, "split": "val", "per_class": {"größe": 0.5}, "nms": "", "beta": None})
    assert found == {"op.conf": "0.25", "op.split": "val", "op.per_class": '{"größe": 0.5}'}
    assert "op.per_class" not in operating_tags({"per_class": {}})


def test_a_teacher_is_named_by_file_and_digest(tmp_path: Path) -> None:
    teacher = tmp_path / "big.pt"
    teacher.write_text("x")
    found = teacher_tags(Distillation(str(teacher), {"response": 1.0, "localisation": 0.25}))
    assert found["kd.teacher"] == "big.pt"
    assert found["kd.teacher_sha"] == digest(teacher)
    assert (found["kd.response"], found["kd.localisation"]) == ("1", "0.25")
    assert "kd.teacher_sha" not in teacher_tags(Distillation("yolo11x.pt", {"response": 1.0}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an ONNX file of format version 8."""
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    onnx.save(helper.make_model(graph, ir_version=8), str(tmp_path / "model.onnx"))
    return tmp_path


def test_the_size_of_a_network_is_that_of_its_checkpoint(folder: Path) -> None:
    checkpoint = checkpoints.path()
    variant = a_variant("fp32-onnx", sources={"checkpoint_sha256": digest(checkpoint)})
    entries = [Entry("m.pt", checkpoint, 128), Entry("v", folder, None, variant)]
    found = further_tags(entries, [checkpoint])
    from ultralytics import YOLO

    n = sum(parameter.numel() for parameter in YOLO(checkpoint).model.parameters())
    assert found["m.pt"]["model.params"] == found["v"]["model.params"] == str(n)
    assert found["v"]["model.ir"] == "8"
    assert "model.ir" not in found["m.pt"]
    # Four times the pixels are four times the work of convolutions.
    twice = further_tags([Entry("m.pt", checkpoint, 256)], [checkpoint])["m.pt"]["model.gflops"]
    assert float(twice) == pytest.approx(4 * float(found["m.pt"]["model.gflops"]), rel=0.02)


def test_a_variant_of_an_absent_checkpoint_and_a_broken_file_say_nothing(folder: Path) -> None:
    variant = a_variant("fp32-onnx", sources={"checkpoint_sha256": "f" * 64})
    assert set(further_tags([Entry("v", folder, None, variant)], [])["v"]) == {"model.ir", "model.onnx_version"}
    (folder / "model.onnx").write_bytes(b"no model")
    assert further_tags([Entry("v", folder, None, variant)], [])["v"] == {}


def test_the_run_that_trained_a_checkpoint_is_found_above_it(tmp_path: Path) -> None:
    weights = tmp_path / "trial" / "train" / "weights"
    weights.mkdir(parents=True)
    (weights / "best.pt").write_bytes(checkpoints.path().read_bytes())
    content = {"uid": "u", "run_id": "r1", "tracking_uri": "sqlite:///x", "study": "lr"}
    (tmp_path / "trial" / "run.json").write_text(json.dumps(content))
    found = further_tags([Entry("best.pt", weights / "best.pt", 128)], [])["best.pt"]
    assert (found["lineage.training_run_id"], found["lineage.study"]) == ("r1", "lr")
