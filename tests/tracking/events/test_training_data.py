"""A dataset is recognised by names and labels as Ultralytics loaded them, wherever it lies and in whatever order."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.tracking.events.training_data import LoadedData, read_loaded_data

NAMES = {0: "cat", 1: "dog"}


def boxes(*labels: tuple[str, list[int]], root: str = "/data") -> Any:
    """Return a dataset of these images, each object in the middle."""
    return SimpleNamespace(
        labels=[
            {
                "im_file": f"{root}/images/{name}",
                "cls": np.array(classes, dtype=np.float32).reshape(-1, 1),
                "bboxes": np.full((len(classes), 4), 0.5, dtype=np.float32),
                "segments": [],
                "keypoints": None,
            }
            for name, classes in labels
        ]
    )


def read(dataset: Any, names: dict[int, str] = NAMES, source: str = "/data/pets.yaml") -> LoadedData:
    return read_loaded_data(source, names=names, splits={"train": dataset})


def test_images_backgrounds_and_objects_of_every_class_are_counted() -> None:
    found = read(boxes(("a.png", [0, 0, 1]), ("b.png", [])))

    assert found.profile["train"] == {"images": 2, "backgrounds": 1, "objects": 3}
    assert found.profile["classes"] == {"cat": {"train": 2}, "dog": {"train": 1}}
    assert len(found.digest) == 16


def test_a_moved_dataset_in_another_order_is_the_same() -> None:
    one = read(boxes(("a.png", [0]), ("b.png", [1])))
    other = read(boxes(("b.png", [1]), ("a.png", [0]), root="/elsewhere/copy"))

    assert one.digest == other.digest


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (boxes(("a.png", [1])), NAMES),
        (boxes(("c.png", [0])), NAMES),
        (boxes(("a.png", [0, 0])), NAMES),
        (boxes(("a.png", [0])), {0: "cat", 1: "cow"}),
    ],
    ids=["class", "image", "object", "names"],
)
def test_another_label_image_or_name_is_another_dataset(dataset: Any, names: dict[int, str]) -> None:
    assert read(dataset, names).digest != read(boxes(("a.png", [0]))).digest


def test_a_classification_folder_counts_images() -> None:
    samples = [["/pets/train/cat/1.png", 0, None, None], ["/pets/train/dog/2.png", 1, None, None]]
    found = read(SimpleNamespace(samples=samples), source="/pets")

    assert (found.name, found.profile["train"]) == ("pets", {"images": 2, "backgrounds": 0, "objects": 2})


@pytest.mark.parametrize(
    ("source", "name"), [("/d/pets/data.yaml", "pets"), ("/d/pets.yaml", "pets"), ("/d/pets", "pets")]
)
def test_a_dataset_is_called_as_load_dataset_calls_it(source: str, name: str) -> None:
    assert read(boxes(("a.png", [0])), source=source).name == name


def test_an_empty_split_has_no_images() -> None:
    assert read(boxes()).profile["train"] == {"images": 0, "backgrounds": 0, "objects": 0}


def test_a_real_dataset_has_the_name_of_load_dataset(small_data: Path) -> None:
    from mlflow_yolo.datasets.dataset import load_dataset

    assert read(boxes(("a.png", [0])), source=str(small_data)).name == load_dataset(small_data).name
