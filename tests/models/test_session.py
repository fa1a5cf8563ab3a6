"""The checkpoint's session against ONNX Runtime on the file that Ultralytics exports from it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.session import open_checkpoint
from tests.runtime.small_models import IMGSZ, SUFFIXES, VERSIONS, make_model

IMAGES = np.random.default_rng(0).random((3, 3, *IMGSZ), dtype=np.float32)


def by_onnx(file: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"images": image[None]}) for image in images]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("task", SUFFIXES)
@pytest.mark.parametrize("version", VERSIONS)
def test_its_outputs_are_those_of_the_export(tmp_path: Path, version: str, task: str) -> None:
    made = make_model(version, task, tmp_path)
    variant, session = open_checkpoint(made.checkpoint, threads=1, imgsz=64 if task == "classify" else IMGSZ)
    images = IMAGES[..., :64, :64] if task == "classify" else IMAGES
    outputs, expected = session.run(images), by_onnx(made.onnx, images)
    assert [output.shape for output in outputs] == [output.shape for output in expected]
    if task != "classify":  # pixels, of boxes up to 200 wide
        assert outputs[0][:, :4] == pytest.approx(expected[0][:, :4], abs=0.05)
        outputs, expected = (outputs[0][:, 4:], *outputs[1:]), [expected[0][:, 4:], *expected[1:]]
    for output, wanted in zip(outputs, expected, strict=True):
        assert output == pytest.approx(wanted, abs=2e-3)
    assert (variant.kind, variant.task, variant.end2end) == ("pt", task, False)
    assert variant.names == ("one", "two", "three", "four")


def test_the_head_without_suppression_is_taken_when_asked_for(tmp_path: Path) -> None:
    made = make_model("yolo26n", "detect", tmp_path, nms=False)
    variant, session = open_checkpoint(made.checkpoint, imgsz=IMGSZ, end2end=True)
    (output,), (expected,) = session.run(IMAGES), by_onnx(made.onnx, IMAGES)
    assert variant.end2end
    assert output.shape == expected.shape == (3, 252, 6)
    assert output[..., 4] == pytest.approx(expected[..., 4], abs=1e-3)


def test_the_shipped_checkpoint_keeps_the_size_it_was_trained_at() -> None:
    variant, session = open_checkpoint("digits")
    assert (variant.imgsz, variant.stride, len(variant.names)) == ((128, 128), 32, 10)
    assert variant.sha256 == variant.sources["checkpoint_sha256"]
    assert session.run(np.zeros((2, 3, 128, 128), np.float32))[0].shape == (2, 14, 336)


def test_a_run_leaves_the_threads_of_torch_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    _, session = open_checkpoint("digits", threads=2)
    session.run(np.zeros((1, 3, 128, 128), np.float32))
    assert set_to == [2, 5]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"imgsz": 100}, "imgsz=100x100"),
        ({"imgsz": 0}, "imgsz=0x0"),
        ({"threads": 0}, "threads=0"),
        ({"end2end": True}, "end2end"),
    ],
)
def test_what_the_model_does_not_take_is_one_line(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^[^\n]*{word}[^\n]*$"):
        open_checkpoint("digits", **options)


def test_what_is_no_checkpoint_or_of_another_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        open_checkpoint(tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="task=pose"):
        open_checkpoint("yolo11n-pose.yaml")
