"""Watched images are read through the validation's own transforms, with boxes that lie where the objects are."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mlflow_yolo.tracking.maps.choice import Chosen
from mlflow_yolo.tracking.maps.inputs import read_input, read_labels
from mlflow_yolo.tracking.maps.watched import MOST_OBJECTS, read_watched

slow = pytest.mark.slow

SIZES = ((50, 31), (140, 77), (63, 200))


class FakeDataset:
    """Stands in for Ultralytics' detection dataset: images that need no letterboxing, from transforms that draw."""

    def __init__(self, pixels: torch.Tensor, objects: int = 1) -> None:
        self.pixels = pixels
        boxes = np.array([[0.5, 0.5, (i + 1) / objects, 0.5] for i in range(objects)])
        self.labels = [{"im_file": "/a/b.png", "cls": np.zeros((objects, 1)), "bboxes": boxes, "segments": []}]

    def __getitem__(self, index: int) -> dict[str, Any]:
        random.random(), np.random.rand(), torch.rand(1)
        size = tuple(self.pixels.shape[1:])
        return {"img": self.pixels, "im_file": "/a/b.png", "ori_shape": size, "ratio_pad": ((1.0, 1.0), (0, 0))}


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


def test_random_numbers_of_the_training_are_not_drawn() -> None:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])

    read_input(FakeDataset(torch.zeros(3, 8, 8, dtype=torch.uint8)), 0)

    assert draws() == expected


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_pictures_of_any_number_of_channels_can_be_looked_at(channels: int, shown: list[int]) -> None:
    pixels = torch.arange(channels, dtype=torch.uint8)[:, None, None].expand(channels, 4, 6)
    read = read_input(FakeDataset(pixels), 0)

    assert read.picture.shape == (4, 6, 3)
    assert read.picture[1, 1].tolist() == shown
    assert read.tensor("cpu")[-1, 0, 0] == pytest.approx((channels - 1) / 255)


def test_a_classifiers_image_is_whole_and_its_pixels_are_shares_already() -> None:
    pixels = torch.rand(3, 4, 4)

    class Dataset:
        samples = (["/x/cat/1.png", 0, None, None],)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"img": pixels, "cls": 0}

    watched = read_watched(Dataset(), {0: "cat"})

    assert watched.is_classification
    (one,) = watched.images
    assert one.chosen == Chosen("cam/01-cat", "cat", 0, 0)
    assert one.input.name == "1.png"
    assert torch.equal(one.input.tensor("cpu"), pixels)
    assert one.input.picture.tolist() == (255 * pixels).round().permute(1, 2, 0).int().tolist()


def test_of_very_many_objects_the_largest_are_explained() -> None:
    watched = read_watched(FakeDataset(torch.zeros(3, 8, 8, dtype=torch.uint8), objects=400), {})

    widths = watched.images[0].boxes[:, 2] - watched.images[0].boxes[:, 0]
    assert len(widths) == MOST_OBJECTS
    assert widths[-1] == pytest.approx(101 / 400)
    assert widths[0] == pytest.approx(1.0)


@pytest.fixture
def bright_boxes(tmp_path: Path) -> Callable[..., Any]:
    """Return Ultralytics' validation dataset of dark pictures of odd sizes, each with one bright box."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset

    def make(*, rect: bool, imgsz: int = 96, outlined: bool = False) -> Any:
        folder = tmp_path / "data"
        for kind in ("images", "labels"):
            (folder / kind / "val").mkdir(parents=True)
        for i, (width, height) in enumerate(SIZES):
            pixels = np.full((height, width, 3), 20, np.uint8)
            x1, y1, x2, y2 = width // 2, height // 5, width // 2 + width // 4, height // 5 + height // 3
            pixels[y1:y2, x1:x2] = (250, 128, 60)
            Image.fromarray(pixels).save(folder / "images" / "val" / f"{i}.png")
            box = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            corners = [x1 / width, y1 / height, x2 / width, y1 / height, x2 / width, y2 / height]
            (folder / "labels" / "val" / f"{i}.txt").write_text(f"0 {' '.join(map(str, corners if outlined else box))}")
        content = {"path": str(folder), "train": "images/val", "val": "images/val", "names": ["bright"], "nc": 1}
        (folder / "data.yaml").write_text(yaml.safe_dump(content))
        arguments = get_cfg(overrides={"imgsz": imgsz, "task": "detect"})
        data = {**content, "names": {0: "bright"}, "channels": 3}
        return build_yolo_dataset(arguments, str(folder / "images" / "val"), 2, data, mode="val", rect=rect)

    return make


@slow
@pytest.mark.parametrize("rect", [True, False])
def test_boxes_lie_on_the_objects_in_the_input_and_in_the_picture(bright_boxes: Callable[..., Any], rect: bool) -> None:
    watched = read_watched(bright_boxes(rect=rect), {0: "bright"})

    assert len(watched.images) == 4  # three extremes, and the class once more
    for one in watched.images:
        height, width = one.input.picture.shape[:2]
        for pixels, box in (
            (one.input.pixels.permute(1, 2, 0).numpy(), one.input_boxes[0]),
            (one.input.picture, one.boxes[0] * [width, height, width, height]),
        ):
            x1, y1, x2, y2 = box
            rows, columns = np.where(pixels[..., 0] > 180)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert found == pytest.approx([x1, y1, x2, y2], abs=1.0)
            assert np.abs(pixels[int((y1 + y2) / 2), int((x1 + x2) / 2)].astype(int) - [250, 128, 60]).max() <= 2  # RGB
        # Padding is grey (114) and is no part of the picture, whose sides are the image's own proportions.
        assert not (one.input.picture == 114).all(axis=2).any()
        original = SIZES[int(Path(one.input.name).stem)]
        assert width / height == pytest.approx(original[0] / original[1], rel=0.04)


@slow
def test_outlines_come_with_labels_that_have_them(bright_boxes: Callable[..., Any]) -> None:
    (labels, *_) = read_labels(bright_boxes(rect=False, outlined=True))

    assert len(labels.outlines) == len(labels.classes) == 1
    x, y = labels.outlines[0].T
    assert [x.min(), y.min(), x.max(), y.max()] == pytest.approx(labels.boxes[0].tolist(), abs=1e-6)


def test_boxes_without_outlines_are_enough() -> None:
    label = {"im_file": "a", "cls": np.zeros((2, 1)), "bboxes": np.full((2, 4), 0.5), "segments": [np.zeros((3, 2))]}

    (labels,) = read_labels(SimpleNamespace(labels=[label]))

    assert labels.outlines == ()
    assert labels.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]] * 2
