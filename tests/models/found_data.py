"""A data set whose objects lie where an untrained model finds something, so that its validation has hits and misses."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.models.validation import validate

SHAPES = ((64, 64), (96, 60), (50, 80), (64, 64), (72, 72))
NAMES = ("one", "two", "three", "four")


class Found:
    """Keeps, by file, what a validator finds in pixels of its input, and where the image lies in it."""

    def init_metrics(self, model: Any) -> None:
        super().init_metrics(model)
        self.found: dict[Path, dict[str, Any]] = {}

    def update_metrics(self, preds: list[dict[str, Any]], batch: dict[str, Any]) -> None:
        for index, pred in enumerate(preds):
            truth = self._prepare_batch(index, batch)
            kept = {name: values.numpy() for name, values in pred.items()}
            self.found[Path(truth["im_file"])] = {**kept, "size": truth["ori_shape"], "place": truth["ratio_pad"]}
        super().update_metrics(preds, batch)


class FoundBoxes(Found, DetectionValidator):
    """Of a detector."""


class FoundMasks(Found, SegmentationValidator):
    """Of a segmentation model."""


def calmed(checkpoint: Path) -> Path:
    """Return the checkpoint, changed: its boxes are smaller than the pictures, and its scores are not all 0 or 1."""
    from ultralytics import YOLO

    network = YOLO(checkpoint, verbose=False)
    head = network.model.model[-1]
    for name in ("cv2", "cv3", "one2one_cv2", "one2one_cv3"):
        for branch in getattr(head, name, None) or []:
            last = branch[-1]
            last.weight.data *= 0.25
            if name.endswith("cv2") and head.reg_max > 1:  # a distribution over the distance to each side
                last.bias.data -= torch.arange(head.reg_max).repeat(4) * 0.8
            elif name.endswith("cv2"):  # YOLO26: the distance itself
                last.bias.data += 1.5
    network.save(checkpoint)
    return checkpoint


def found_data(checkpoint: Path, folder: Path, *, task: str, imgsz: int, batch: int, **arguments: Any) -> Path:
    """Return the data.yaml of five pictures of noise; the last has no objects.

    About a third of what the model finds is an object, half of these moved by about a pixel; so are two places at
    random, where it need not find any.
    """
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind / "val").mkdir(parents=True)
    for index, (height, width) in enumerate(SHAPES):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / "images" / "val" / f"{index}.png")
        # Ultralytics takes data without any label for an error.
        (folder / "labels" / "val" / f"{index}.txt").write_text(f"{_anywhere(rng, task)}\n")
    content = {"path": str(folder), "train": "images/val", "val": "images/val", "names": list(NAMES)}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    done = validate(
        str(checkpoint), load_dataset(folder / "data.yaml", task=task), split="val", imgsz=imgsz, batch=batch,
        device="cpu", directory=folder / "found", arguments={"conf": 0.1, "iou": 0.3, "max_det": 60, **arguments},
        validator={"detect": FoundBoxes, "segment": FoundMasks}[task], progress=lambda *_: None,
    )  # fmt: skip
    for file, found in done.found.items():
        lines = [_label(found, row, rng, task) for row in range(len(found["cls"]))]
        lines = [line for line in lines if line][::2] + [_anywhere(rng, task) for _ in range(2)]
        text = "".join(f"{line}\n" for line in dict.fromkeys(lines)) if file.stem != "4" else ""
        (folder / "labels" / "val" / f"{file.stem}.txt").write_text(text)
    return folder / "data.yaml"


def _label(found: dict[str, Any], row: int, rng: np.random.Generator, task: str) -> str:
    """Return the label of one detection, half of the time moved a little; none for one that is tiny or reaches out."""
    moved = rng.normal(0, 0.01, 2) * rng.integers(0, 2)
    corners = _fractions(found, found["bboxes"][row].reshape(2, 2))
    if task == "segment":
        contours, _ = cv2.findContours(found["masks"][row].copy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = max(contours, key=cv2.contourArea).reshape(-1, 2) if contours else np.zeros((0, 2))
        corners = _fractions(found, 4 * points + 2)
    if len(corners) < (8 if task == "segment" else 2) or corners.min() < 0 or corners.max() > 1:
        return ""
    corners = np.clip(corners + moved, 0, 1)
    if task == "segment":
        return _line(found["cls"][row], corners.ravel())
    size = corners[1] - corners[0]
    return _line(found["cls"][row], [*corners.mean(axis=0), *size]) if size.min() > 0.06 else ""


def _fractions(found: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """Return points (N, 2) xy of the validator's input as fractions of the original image."""
    (gain, _), padding = found["place"]
    height, width = found["size"]
    return (points - padding) / gain / (width, height)


def _anywhere(rng: np.random.Generator, task: str) -> str:
    left, top = rng.uniform(0, 0.6, 2)
    if task == "segment":
        return _line(0, [left, top, left + 0.3, top, left + 0.3, top + 0.3])
    return _line(0, [left + 0.15, top + 0.15, 0.3, 0.3])


def _line(class_id: float, values: Any) -> str:
    return " ".join([str(int(class_id)), *(f"{value:.6f}" for value in np.asarray(values).tolist())])
