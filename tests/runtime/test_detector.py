"""The detector against Ultralytics' own predict on the same file: the same numbers, not similar ones."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

from mlflow_yolo.checkpoints import path as shipped_checkpoint
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.variant import Variant, write_variant
from tests.runtime.small_models import IMGSZ, VERSIONS, SmallModel, export_model

BCCD = Path(__file__).resolve().parents[3] / "shared" / "data" / "bccd"
"""A copy of BCCD with its checkpoint, beside the working tree; the test of it is skipped without."""

Models = Callable[[str, str], SmallModel]


def ultralytics(model: Path, task: str, **options: Any) -> Callable[[Any], Any]:
    """Return a function from an image to what Ultralytics predicts for it."""
    opened = YOLO(model, task=task, verbose=False)
    return lambda image: opened.predict(image, verbose=False, device="cpu", **options)[0]


def check_same(found: Detections, expected: Any) -> None:
    """Check boxes, scores, classes and masks, all of them and in their order."""
    assert found.boxes == pytest.approx(expected.boxes.xyxy.numpy(), abs=1e-3)
    assert found.scores == pytest.approx(expected.boxes.conf.numpy(), abs=1e-5)
    assert found.classes.tolist() == expected.boxes.cls.int().tolist()
    if found.masks is not None and len(found):
        masks = expected.masks.data.numpy().astype(bool)
        assert found.masks.shape == masks.shape
        assert (found.masks != masks).mean() < 1e-5  # pixels where the sum of prototypes is all but 0


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("detect", {}),
        ("segment", {}),
        ("segment", {"retina_masks": True}),
        ("detect", {"conf": 0.05, "iou": 0.4, "max_det": 60}),
    ],
    ids=str,
)
@pytest.mark.parametrize("version", VERSIONS)
def test_it_finds_what_ultralytics_predicts(
    small_models: Models, pictures: list[Path], version: str, task: str, options: dict[str, Any]
) -> None:
    model = small_models(version, task).onnx
    detector = Detector(model, threads=1, **options)
    predict = ultralytics(model, task, **options)
    n_found = 0
    for picture in pictures:
        found = detector(picture)
        check_same(found, predict(picture))
        n_found += len(found)
    assert n_found > 20
    assert (detector.task, detector.names) == (task, ("one", "two", "three", "four"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_classifier_says_what_ultralytics_predicts(small_models: Models, pictures: list[Path], version: str) -> None:
    model = small_models(version, "classify").onnx
    found = Detector(model, threads=1)(pictures)
    predict = ultralytics(model, "classify")
    expected = [predict(picture).probs.data.numpy() for picture in pictures]
    probabilities = [one.probabilities for one in found]
    assert np.allclose(probabilities, expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it does look at the picture
    assert [len(one) for one in found] == [0] * len(pictures)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_head_without_suppression_gives_what_ultralytics_predicts(
    small_models: Models, tmp_path: Path, pictures: list[Path], task: str
) -> None:
    model = exported(small_models("yolo26n", task), tmp_path, nms=False)
    detector, predict = Detector(model, threads=1), ultralytics(model, task, nms=False)
    for picture in pictures[:3]:
        expected = predict(picture)
        assert len(expected.boxes)
        check_same(detector(picture), expected)


def test_a_head_with_suppression_built_in_gives_what_ultralytics_predicts(
    small_models: Models, tmp_path: Path, pictures: list[Path]
) -> None:
    model = exported(small_models("yolo11n", "segment"), tmp_path, nms=True, conf=0.3, iou=0.5)
    detector, predict = Detector(model, threads=1, conf=0.5), ultralytics(model, "segment", conf=0.5)
    for picture in pictures[:3]:
        expected = predict(picture)
        assert len(expected.boxes)
        check_same(detector(picture), expected)


@pytest.mark.parametrize("arguments", [{"batch": 3}, {"dynamic": True}], ids=str)
def test_a_batch_gives_what_single_images_give(
    small_models: Models, tmp_path: Path, pictures: list[Path], arguments: dict[str, Any]
) -> None:
    made = small_models("yolo11n", "segment")
    alone = Detector(made.onnx, threads=1)
    together = Detector(exported(made, tmp_path, **arguments), threads=1)(pictures)
    for picture, found in zip(pictures, together, strict=True):
        expected = alone(picture)
        assert found.boxes == pytest.approx(expected.boxes, abs=1e-2)
        assert found.scores == pytest.approx(expected.scores, abs=1e-4)


def exported(made: SmallModel, folder: Path, **arguments: Any) -> Path:
    """Return a further export of a model."""
    shutil.copy(made.checkpoint, folder / "model.pt")
    return export_model(folder / "model.pt", imgsz=IMGSZ, **arguments)


def test_path_bytes_array_and_pil_image_are_the_same_image(small_models: Models, pictures: list[Path]) -> None:
    detector = Detector(small_models("yolo11n", "detect").onnx, threads=1)
    file = pictures[0]
    expected = detector(file)
    for source in (str(file), file.read_bytes(), cv2.imread(str(file)), Image.open(file)):
        assert np.array_equal(detector(source).boxes, expected.boxes)
    assert len(expected)


def test_the_shipped_checkpoint_finds_the_digits_that_ultralytics_predicts(tmp_path: Path) -> None:
    shutil.copy(shipped_checkpoint(), tmp_path / "digits.pt")
    model = export_model(tmp_path / "digits.pt", imgsz=128)
    detector, predict = Detector(model, threads=1), ultralytics(model, "detect")
    n_found = 0
    for image in load_dataset("digits").splits["val"].images[:16]:
        found = detector(image)
        check_same(found, predict(image))
        n_found += len(found)
    assert n_found > 30


def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ultralytics' OpenVINO compute in single precision too; by itself it takes bf16 where the CPU has it."""
    openvino = pytest.importorskip("openvino")
    compile_model = openvino.Core.compile_model

    def exactly(self: Any, model: Any, device_name: str, config: dict[str, Any]) -> Any:
        return compile_model(self, model, device_name, config | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino.Core, "compile_model", exactly)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_on_bccd_it_finds_what_ultralytics_predicts(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (BCCD / "yolo11n-bccd.pt").is_file():
        pytest.skip("BCCD and its checkpoint are not beside the working tree")
    shutil.copy(BCCD / "yolo11n-bccd.pt", tmp_path / "bccd.pt")
    if form == "openvino":
        single_precision(monkeypatch)
    model = export_model(tmp_path / "bccd.pt", imgsz=320, format=form)
    detector, predict = Detector(model, threads=1), ultralytics(model, "detect")
    n_found = 0
    for image in sorted(BCCD.rglob("*.jpg"))[:24]:
        found = detector(image)
        check_same(found, predict(image))
        n_found += len(found)
    assert n_found > 200


@pytest.fixture
def variant(tmp_path: Path, small_models: Models) -> Callable[..., Path]:
    """Return a function (operating_point) that makes a variant's folder."""

    def make(**operating_point: Any) -> Path:
        shutil.copy(small_models("yolo11n", "detect").onnx, tmp_path / "model.onnx")
        names = ("one", "two", "three", "four")
        description = Variant("fp32-onnx", "model.onnx", "detect", names, (96, 128), operating_point=operating_point)
        write_variant(tmp_path, description)
        return tmp_path

    return make


def test_the_operating_point_of_a_variant_holds_unless_told_otherwise(
    variant: Callable[..., Path], pictures: list[Path]
) -> None:
    folder = variant(conf=0.6, iou=0.3, max_det=7, per_class={"two": 0.9})
    model, picture = folder / "model.onnx", pictures[0]
    same = Detector(model, conf=0.6, iou=0.3, max_det=7, per_class={"two": 0.9})(picture)
    assert np.array_equal(Detector(folder)(picture).boxes, same.boxes)
    assert 0 < len(same) <= 7
    # A threshold given is one for all classes.
    lower = Detector(folder, conf=0.1, iou=0.3, max_det=300)(picture)
    assert {1} <= set(lower.classes[lower.scores < 0.9].tolist())


def test_a_class_has_its_own_threshold(small_models: Models, pictures: list[Path]) -> None:
    model = small_models("yolo11n", "detect").onnx
    every = Detector(model)(pictures[0])
    limit = float(np.median(every.scores[every.classes == 2]))
    for word in ("three", 2):
        found = Detector(model, per_class={word: limit})(pictures[0])
        kept = (every.classes != 2) | (every.scores > limit)
        assert np.array_equal(found.boxes, every.boxes[kept])
        assert not kept.all()


def test_no_objects_are_no_error(small_models: Models, pictures: list[Path]) -> None:
    for task in ("detect", "segment"):
        found = Detector(small_models("yolo11n", task).onnx, conf=1)(pictures[0])
        assert (len(found), found.boxes.shape) == (0, (0, 4))
    assert found.masks is not None
    assert found.masks.shape == (0, 96, 128)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"per_class": {"five": 0.5}}, "five"),
        ({"per_class": {9: 0.5}}, "9"),
        ({"conf": 3}, "conf=3"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(small_models: Models, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^[^\n]*{word}[^\n]*$"):
        Detector(small_models("yolo11n", "detect").onnx, **options)


def test_an_empty_list_or_a_broken_image_is_one_line(small_models: Models, tmp_path: Path) -> None:
    detector = Detector(small_models("yolo11n", "detect").onnx)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for images in ([], tmp_path / "broken.jpg", [np.zeros((5, 5, 7), np.uint8)]):
        with pytest.raises(ArgumentError, match=r"^[^\n]+$"):
            detector(images)


def test_a_model_with_other_classes_than_names_does_not_open(small_models: Models, tmp_path: Path) -> None:
    for task, names in (
        ("detect", ("a", "b")),
        ("segment", ("a", "b")),
        ("classify", ("a",)),
        ("detect", tuple("abcdef")),
    ):
        shutil.copy(small_models("yolo11n", task).onnx, tmp_path / "model.onnx")
        imgsz = (64, 64) if task == "classify" else (96, 128)
        write_variant(tmp_path, Variant("fp32-onnx", "model.onnx", task, names, imgsz))
        with pytest.raises(CheckpointError, match=r"^model\.onnx[^\n]+$"):
            Detector(tmp_path)


def test_serving_imports_neither_torch_nor_ultralytics(small_models: Models, pictures: list[Path]) -> None:
    code = (
        "import sys\n"
        "from mlflow_yolo.runtime.detector import Detector\n"
        f"found = Detector({str(small_models('yolo11n', 'segment').onnx)!r})({str(pictures[0])!r})\n"
        "assert len(found), found\n"
        "print(sorted({'torch', 'ultralytics', 'torchvision', 'mlflow', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
