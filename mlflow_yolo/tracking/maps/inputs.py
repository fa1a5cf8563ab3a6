"""Labels and network inputs of a validation set, from the dataset that Ultralytics has loaded for its validations.

Its own transforms make the inputs, so they are what the model is validated on. They draw random numbers even where
nothing is random in them; the training's are given back.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlflow_yolo.attribution.frame import Frame
from mlflow_yolo.detection.boxes import xywhn_to_xyxy
from mlflow_yolo.tracking.maps.choice import Labels


@dataclass(frozen=True, eq=False)
class Input:
    """One image as the model takes it.

    Attributes:
        name: The file's name.
        pixels: (C, h, w) as the dataset gives it: uint8, or float in [0, 1] for a classifier.
        picture: (H, W, 3) uint8 RGB, the part of the input that is image.
        frame: Where that part lies in the input.
    """

    name: str
    pixels: Tensor
    picture: npt.NDArray[np.uint8]
    frame: Frame

    def tensor(self, device: Any) -> Tensor:
        """Return (C, h, w) float32 in [0, 1] on a device."""
        moved = self.pixels.to(device)
        return moved.float() / 255 if self.pixels.dtype == torch.uint8 else moved.float()


def is_classification(dataset: Any) -> bool:
    """Return whether an Ultralytics dataset has one class an image."""
    return hasattr(dataset, "samples")


def read_labels(dataset: Any) -> list[Labels]:
    """Return the labels of every image of an Ultralytics dataset; no image is opened."""
    if is_classification(dataset):
        return [Labels(str(file), np.array([c]), np.zeros((0, 4))) for file, c, *_ in dataset.samples]
    return [_labels(label) for label in dataset.labels]


def _labels(label: Any) -> Labels:
    classes = np.asarray(label["cls"]).reshape(-1).astype(np.int64)
    outlines = tuple(np.asarray(outline).reshape(-1, 2) for outline in label.get("segments") or ())
    return Labels(
        name=str(label["im_file"]),
        classes=classes,
        boxes=xywhn_to_xyxy(np.asarray(label["bboxes"]).reshape(-1, 4), width=1, height=1),
        outlines=outlines if len(outlines) == len(classes) else (),
    )


def read_input(dataset: Any, index: int) -> Input:
    """Return one image through the dataset's own transforms.

    Args:
        dataset: Ultralytics' dataset of a validation.
        index: Position of the image.
    """
    with same_random_numbers():
        item = dataset[index]
    pixels = item["img"]
    height, width = (int(side) for side in pixels.shape[-2:])
    if is_classification(dataset):
        name = str(dataset.samples[index][0])
        frame = Frame((height, width), (height, width), (1.0, 1.0), (0, 0))
    else:
        name, frame = str(item["im_file"]), _frame(item, (height, width))
    return Input(Path(name).name, pixels, _picture(pixels, frame), frame)


def _frame(item: Any, size: tuple[int, int]) -> Frame:
    """Return where a letterboxed image lies, in pixels of the input throughout."""
    ratios, (left, top) = item["ratio_pad"]
    resized = [round(side * ratio) for side, ratio in zip(item["ori_shape"], ratios, strict=True)]
    gain = min(1.0, *(inside / side for inside, side in zip(size, resized, strict=True)))  # never enlarged
    content = max(round(resized[0] * gain), 1), max(round(resized[1] * gain), 1)
    return Frame(content, size, (1.0, 1.0), (top, left))


def _picture(pixels: Tensor, frame: Frame) -> npt.NDArray[np.uint8]:
    """Return the image's part of an input for the eye: grey as grey, of more than three channels the first three."""
    top, left = (int(side) for side in frame.pad)
    height, width = frame.original
    shown = pixels[:, top : top + height, left : left + width]
    if shown.dtype != torch.uint8:
        shown = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    shown = shown[:3] if shown.shape[0] >= 3 else shown[:1].expand(3, -1, -1)
    return np.ascontiguousarray(shown.permute(1, 2, 0).numpy())


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Give the random numbers of Python, numpy and torch back as they were: the training's augmentation draws them."""
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
