from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ultralytics.data.utils import verify_image_label
from ultralytics.utils import ops

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.pipeline import Pipeline
from mlflow_yolo.runtime.scoring import check_names, probabilities_of, read_boxes, samples_of
from mlflow_yolo.variant import Variant

VARIANT = Variant(kind="fp32-onnx", file="m.onnx", task="detect", names=("bright", "dark"), imgsz=(64, 64))


class Square:
    """A session that finds a bright square at x 30..50, y -4..16 and, less sure, a dark one in the same anchor."""

    batch: int | None = None

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.tile(np.array([40, 6, 20, 20, 0.9, 0.3], np.float32)[:, None], (len(images), 1, 1)),)


class Brightness:
    """A session that says how bright an image is."""

    batch: int | None = None

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        bright = images.mean(axis=(1, 2, 3))
        return (np.stack([bright, 1 - bright], axis=1),)


@pytest.fixture
def dataset(small_data: Path) -> Dataset:
    return load_dataset(small_data)


def test_every_image_has_its_truth_and_its_detections_unclipped_and_of_every_label(dataset: Dataset) -> None:
    told: list[tuple[int, int]] = []
    samples = samples_of(
        Pipeline(VARIANT, Square()), dataset, "test", batch=3, progress=lambda done, of: told.append((done, of))
    )
    assert [sample.image for sample in samples] == [f"images/test/test{index}.png" for index in range(4)]
    assert told == [(3, 4), (4, 4)]
    for sample, labels in zip(samples, dataset.splits["test"].labels, strict=True):
        assert sample.boxes.tolist() == [[30, -4, 50, 16]] * 2
        assert sample.classes.tolist() == [0, 1]
        assert (sample.height, sample.width) == (64, 64)
        rows = np.loadtxt(labels)
        assert sample.gt_classes.tolist() == rows[:, 0].tolist()
        corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], axis=1) * 64
        assert sample.gt_boxes == pytest.approx(corners, abs=1e-4)


def test_samples_do_not_depend_on_the_batch(dataset: Dataset) -> None:
    one, four = (samples_of(Pipeline(VARIANT, Square()), dataset, "val", batch=batch) for batch in (1, 4))
    for a, b in zip(one, four, strict=True):
        assert (a.image, a.boxes.tolist(), a.gt_boxes.tolist()) == (b.image, b.boxes.tolist(), b.gt_boxes.tolist())


LABELS = {
    "boxes": "1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.1 0.1\n\n1 0.5 0.5 0.2 0.4\n",
    "polygons": "0 0.1 0.1 0.5 0.2 0.3 0.7\n1 0.2 0.2 0.4 0.2 0.4 0.9 0.2 0.9\n0 0.1 0.1 0.5 0.2 0.3 0.7\n",
    "same box, other polygon": "0 0 0 0.5 0 0.5 0.5\n0 0 0 0.5 0.5 0 0.5\n",
    "marked": "\ufeff0 0.5 0.5 0.2 0.4\n",
    "empty": "",
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_read_as_by_ultralytics(tmp_path: Path, small_data: Path, kind: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text(LABELS[kind], encoding="utf-8")
    image = str(next(small_data.parent.rglob("*.png")))
    expected = verify_image_label((image, str(file), "", False, 2, 0, 0, False))[1]
    classes, boxes = read_boxes(file)
    found = np.concatenate([classes[:, None], boxes], axis=1)
    assert found[np.lexsort(found.T)] == pytest.approx(expected[np.lexsort(expected.T)], abs=1e-6)


def test_an_image_without_labels_has_no_objects() -> None:
    classes, boxes = read_boxes(None)
    assert (classes.shape, boxes.shape) == ((0,), (0, 4))


def test_the_box_of_a_polygon_is_the_one_around_its_points(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 0.1 0.3 0.5 0.2 0.3 0.7")
    _, boxes = read_boxes(tmp_path / "a.txt")
    points = np.array([[0.1, 0.3], [0.5, 0.2], [0.3, 0.7]], dtype=np.float32)
    assert boxes == pytest.approx(ops.segments2boxes([points]))
    assert boxes.tolist() == [pytest.approx([0.3, 0.45, 0.4, 0.5])]


@pytest.fixture
def folders(tmp_path: Path) -> Dataset:
    """Return a data set of bright and dark images, three and two in val."""
    from PIL import Image

    for split in ("train", "val"):
        for name, count, grey in (("bright", 3, 200), ("dark", 2, 40)):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20, 16), (grey + index,) * 3).save(tmp_path / split / name / f"{index}.png")
    return load_dataset(tmp_path)


def test_probabilities_stand_in_the_order_of_the_split(folders: Dataset) -> None:
    pipeline = Pipeline(replace(VARIANT, task="classify", imgsz=(16, 16)), Brightness())
    true, probabilities = probabilities_of(pipeline, folders, "val", batch=2)
    assert true.tolist() == [0, 0, 0, 1, 1]
    assert probabilities[:, 0] * 255 == pytest.approx([200, 201, 202, 40, 41], abs=1e-3)


def test_a_model_of_other_classes_or_another_task_is_refused(dataset: Dataset, folders: Dataset) -> None:
    with pytest.raises(CheckpointError, match=r"cat.*bright, dark"):
        samples_of(Pipeline(replace(VARIANT, names=("cat", "dark")), Square()), dataset, "val")
    with pytest.raises(CheckpointError, match=r"task=detect.*task=classify"):
        check_names(Pipeline(VARIANT, Square()), folders)


def test_a_split_that_is_not_there_is_named_with_those_that_are(folders: Dataset, dataset: Dataset) -> None:
    with pytest.raises(ArgumentError, match=r"split=test.*train, val"):
        probabilities_of(Pipeline(replace(VARIANT, task="classify"), Brightness()), folders, "test")
    with pytest.raises(ArgumentError, match="batch=0"):
        samples_of(Pipeline(VARIANT, Square()), dataset, "val", batch=0)
