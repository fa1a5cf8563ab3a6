"""Kept predictions are Ultralytics' own, in pixels of the original image, whatever its shape."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mlflow_yolo import checkpoints
from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.models.data import localise
from mlflow_yolo.training.measurement import Measurement, measure
from tests.training.task_data import narrow_model, task_data

pytestmark = pytest.mark.slow
SIZES = {"square": (64, 64), "wide": (120, 50), "tall": (45, 90)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a scene of digits that was scaled to each of three shapes."""
    root = tmp_path_factory.mktemp("shapes")
    made = generate("digits", cache_dir=root / "cache", imgsz=64, n_train=1, n_val=1, n_test=1)
    (root / "images").mkdir()
    (root / "labels").mkdir()
    label = next((made.parent / "labels" / "val").iterdir()).read_text()
    for name, size in SIZES.items():
        Image.open(next((made.parent / "images" / "val").iterdir())).resize(size).save(root / "images" / f"{name}.png")
        (root / "labels" / f"{name}.txt").write_text(label)
    content = {"path": str(root), "train": "images", "val": "images", "names": [str(n) for n in range(10)]}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root / "data.yaml"


@pytest.fixture(scope="module")
def measured(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    folder = tmp_path_factory.mktemp("measured")
    dataset = localise(load_dataset(shapes), folder)
    return measure(
        checkpoints.path(), dataset, split="val", imgsz=64, batch=2, device="cpu", directory=folder / "measured"
    )


@pytest.fixture(scope="module")
def theirs(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """Return by image what Ultralytics' own validator writes for COCO's tools: xywh in pixels of the original."""
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("theirs")
    YOLO(checkpoints.path()).val(
        data=str(shapes), imgsz=64, batch=2, device="cpu", workers=0, plots=False, save_json=True, verbose=False,
        project=str(folder), name="val",
    )  # fmt: skip
    rows = json.loads((folder / "val" / "predictions.json").read_text())
    return {name: [row for row in rows if row["image_id"] == name] for name in SIZES}


def sample_of(measured: Measurement, name: str) -> Sample:
    return next(sample for sample in measured.samples if sample.image == f"images/{name}.png")


@pytest.mark.parametrize("name", list(SIZES))
def test_boxes_are_those_that_ultralytics_writes_for_coco(
    measured: Measurement, theirs: dict[str, list[dict]], name: str
) -> None:
    sample = sample_of(measured, name)

    expected = np.array([[*row["bbox"], row["score"]] for row in theirs[name]])
    found = np.column_stack([sample.boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2], sample.scores])
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found, expected, atol=2e-3)  # both in the order in which they were kept
    first = min(row["category_id"] for rows in theirs.values() for row in rows)  # COCO's ids may count from one
    assert list(sample.classes) == [row["category_id"] - first for row in theirs[name]]
    assert len(set(sample.classes)) > 1


@pytest.mark.parametrize("name", list(SIZES))
def test_ground_truth_is_that_of_the_label_file_in_pixels(measured: Measurement, shapes: Path, name: str) -> None:
    sample, (width, height) = sample_of(measured, name), SIZES[name]
    rows = np.loadtxt(shapes.parent / "labels" / f"{name}.txt", ndmin=2)

    centre, size = rows[:, 1:3] * (width, height), rows[:, 3:5] * (width, height)
    np.testing.assert_allclose(sample.gt_boxes, np.hstack([centre - size / 2, centre + size / 2]), atol=0.75)
    assert (sample.width, sample.height) == (width, height)
    assert list(sample.gt_classes) == list(rows[:, 0].astype(int))


def test_every_image_has_one_sample(measured: Measurement) -> None:
    assert sorted(sample.image for sample in measured.samples) == sorted(f"images/{name}.png" for name in SIZES)
    assert (measured.n_images, measured.labels.shape) == (3, (0, 2))


def test_a_classifier_is_validated_in_the_order_of_its_images_whatever_the_seed(tmp_path: Path) -> None:
    data = task_data("classify", tmp_path / "data")
    dataset = load_dataset(data)
    weights = narrow_model("yolo11n", "classify", data, tmp_path)
    folders = [dataset.names.index(image.parent.name) for image in dataset.splits["val"].images]
    for seed in (0, 1):
        torch.manual_seed(seed)
        found = measure(weights, dataset, split="val", imgsz=32, batch=4, device="cpu", directory=tmp_path / "measured")
        assert found.labels[:, 0].tolist() == folders
    assert len(set(folders)) > 1
