"""Tests of the export: what Ultralytics computes, without a trace of the exporter."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from ultralytics import SETTINGS, YOLO
from ultralytics.engine import exporter
from ultralytics.utils import LOGGER, checks

from mlflow_yolo import checkpoints
from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.variant import read_variant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that saves a checkpoint of a small model of random weights, of any task and family."""
    root = tmp_path_factory.mktemp("untrained")

    def save(name: str, **attributes: Any) -> Path:
        from ultralytics.nn.tasks import yaml_model_load

        content = yaml_model_load(f"{name}.yaml") | {"nc": 3, "scales": {"n": [0.33, 0.125, 256]}, "scale": "n"}
        content.pop("yaml_file", None)
        file = root / f"{name}-small.yaml"
        file.write_text(yaml.safe_dump(content))
        torch.manual_seed(0)
        network = YOLO(str(file))
        for key, value in attributes.items():
            setattr(network.model, key, value)
        network.save(root / f"{name}.pt")
        return root / f"{name}.pt"

    return save


def run(file: Path, images: Any) -> Any:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def reference(checkpoint: Path, images: Any) -> Any:
    network = YOLO(str(checkpoint)).model.float().eval()
    network.fuse(verbose=False)
    with torch.no_grad():
        out = network(torch.from_numpy(images))
    return out[0] if isinstance(out, (tuple, list)) else out


def test_the_file_gives_what_the_checkpoint_gives_for_any_number_of_images(folder: Path) -> None:
    variant = export_onnx("digits", folder, imgsz=64)
    images = np.random.default_rng(0).random((3, 3, 64, 64), dtype=np.float32)
    (output,) = run(folder / variant.file, images)
    expected = reference(checkpoints.path(), images).numpy()
    assert output.shape == expected.shape == (3, 14, 84)
    np.testing.assert_allclose(output[:, 4:], expected[:, 4:], atol=1e-4)
    np.testing.assert_allclose(output[:, :4], expected[:, :4], atol=1e-2)


def test_the_variant_says_what_a_runtime_must_know(folder: Path) -> None:
    export_onnx("digits", folder, imgsz=(64, 96), sources={"pruning": {"ratio": 0.3}})
    variant = read_variant(folder)
    assert sorted(os.listdir(folder)) == ["model.onnx", "variant.json"]
    assert (variant.kind, variant.task, variant.imgsz, variant.stride) == ("fp32-onnx", "detect", (64, 96), 32)
    assert variant.names == tuple(YOLO(str(checkpoints.path())).names.values())
    assert (variant.end2end, variant.dynamic, variant.channels, variant.transform) == (False, False, 3, {})
    digest = hashlib.sha256(checkpoints.path().read_bytes()).hexdigest()
    assert variant.sources["checkpoint_sha256"] == digest
    assert variant.sources["pruning"] == {"ratio": 0.3}


def test_opset_dynamic_and_simplify_are_passed_through(folder: Path) -> None:
    variant = export_onnx("digits", folder, imgsz=64, opset=15, dynamic=True, simplify=False)
    model = onnx.load(str(folder / variant.file))
    assert variant.opset == 15
    assert variant.dynamic
    assert model.opset_import[0].version == 15
    assert any(node.op_type == "Shape" for node in model.graph.node)
    (output,) = run(folder / variant.file, np.zeros((2, 3, 96, 64), np.float32))
    assert output.shape == (2, 14, 126)


def test_a_fixed_batch_is_fixed(folder: Path) -> None:
    variant = export_onnx("digits", folder, imgsz=64, batch=2)
    session = onnxruntime.InferenceSession(str(folder / variant.file), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [2, 3, 64, 64]


def test_ultralytics_takes_the_file_as_one_of_fixed_size(folder: Path) -> None:
    # A named free axis would make its predictor pad to a rectangle, which the file does not take.
    variant = export_onnx("digits", folder, imgsz=64)
    image = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    results = YOLO(str(folder / variant.file), task="detect").predict([image, image], imgsz=64, verbose=False)
    assert len(results) == 2


def test_the_end_to_end_head_is_taken_where_it_is_asked_for(folder: Path, tmp_path: Path, untrained: Any) -> None:
    checkpoint = untrained("yolo26n")
    assert not export_onnx(checkpoint, folder, imgsz=64).end2end
    other = tmp_path / "other"
    other.mkdir()
    variant = export_onnx(checkpoint, other, imgsz=64, end2end=True)
    assert variant.end2end
    (output,) = run(other / variant.file, np.zeros((1, 3, 64, 64), np.float32))
    assert output.shape[2] == 6  # box, score, class


def test_a_model_without_an_end_to_end_head_has_none_to_take(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="end2end=True"):
        export_onnx("digits", folder, imgsz=64, end2end=True)


def test_a_segmenter_gives_masks_for_any_number_of_images(folder: Path, untrained: Any) -> None:
    variant = export_onnx(untrained("yolov8n-seg"), folder, imgsz=64)
    boxes, masks = run(folder / variant.file, np.zeros((2, 3, 64, 64), np.float32))
    assert variant.task == "segment"
    assert boxes.shape == (2, 4 + 3 + 32, 84)
    assert masks.shape == (2, 32, 16, 16)


def test_a_classifier_names_its_preprocessing(folder: Path, untrained: Any) -> None:
    from ultralytics.data.augment import classify_transforms

    transforms = classify_transforms(32, mean=(0.5, 0.25, 0.125), std=(0.2, 0.3, 0.4))
    variant = export_onnx(untrained("yolo11n-cls", transforms=transforms), folder, imgsz=64)
    assert variant.task == "classify"
    assert variant.transform["size"] == (64, 64) or variant.transform["size"] == [64, 64]
    assert (variant.transform["crop"], variant.transform["interpolation"]) == ("center", "bilinear")
    assert variant.transform["mean"] == pytest.approx([0.5, 0.25, 0.125])
    assert variant.transform["std"] == pytest.approx([0.2, 0.3, 0.4])
    (output,) = run(folder / variant.file, np.zeros((2, 3, 64, 64), np.float32))
    np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-5)


def test_nothing_is_printed_changed_or_left_behind(
    folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "weights" / "best.pt"
    source.parent.mkdir()
    source.write_bytes(checkpoints.path().read_bytes())
    before = LOGGER.level, checks.AUTOINSTALL, exporter.SETTINGS, dict(SETTINGS)
    export_onnx(source, folder, imgsz=64)
    assert capfd.readouterr() == ("", "")
    assert (LOGGER.level, checks.AUTOINSTALL, exporter.SETTINGS, dict(SETTINGS)) == before
    assert [file.name for file in source.parent.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("opset", [3, 99])
def test_an_opset_that_does_not_exist_is_refused(folder: Path, opset: int) -> None:
    with pytest.raises(ArgumentError, match=f"opset={opset}"):
        export_onnx("digits", folder, imgsz=64, opset=opset)
    assert list(folder.glob("variant.json")) == []
    assert LOGGER.level != logging.CRITICAL


@pytest.mark.parametrize("imgsz", [0, -32, (64, 64, 64), ()])
def test_an_image_size_that_is_none_is_refused(folder: Path, imgsz: Any) -> None:
    with pytest.raises(ArgumentError, match="imgsz="):
        export_onnx("digits", folder, imgsz=imgsz)


def test_a_batch_of_no_images_is_refused(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="batch=0"):
        export_onnx("digits", folder, imgsz=64, batch=0)


def test_an_untrained_model_is_refused(folder: Path, small_model: Path) -> None:
    with pytest.raises(CheckpointError, match="not trained"):
        export_onnx(small_model, folder, imgsz=64)


def test_a_file_that_is_no_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.pt"
    file.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        export_onnx(file, folder, imgsz=64)


def test_another_task_is_refused(folder: Path, untrained: Any) -> None:
    with pytest.raises(CheckpointError, match="pose"):
        export_onnx(untrained("yolo11n-pose"), folder, imgsz=64)
