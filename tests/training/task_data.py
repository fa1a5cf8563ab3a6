"""Tiny data sets and narrow models for every task, so that a real training of any of them takes about a second.

The embedded digits have boxes, outlines and classes; keypoints and rotated boxes are generated here: grey noise with
one bright bar an image, which is 24 by 10 pixels and turned by an angle.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageDraw

from mlflow_yolo.datasets.digits import generate

SIDE = 64
_COUNTS = {"train": 8, "val": 4, "test": 4}
_LENGTH, _THICKNESS = 24.0, 10.0

SUFFIXES = {"detect": "", "segment": "-seg", "classify": "-cls", "pose": "-pose", "obb": "-obb"}
"""What Ultralytics appends to a model's name, by task."""

VERSIONS = ("yolov8n", "yolo11n", "yolo26n")


def task_data(task: str, folder: Path) -> Path:
    """Return the data.yaml (for classify the folder) of a data set of at most 20 training images, made in `folder`."""
    if task in ("pose", "obb"):
        return bars(task, folder)
    if task == "classify":
        return generate("digits-cls", cache_dir=folder, imgsz=32, n_train=10, n_val=10, n_test=10)
    name = {"detect": "digits", "segment": "digits-seg"}[task]
    return generate(name, cache_dir=folder, imgsz=SIDE, n_train=8, n_val=4, n_test=4)


def bars(task: str, folder: Path) -> Path:
    """Return the data.yaml of bars with their two ends as keypoints (`pose`) or as rotated boxes (`obb`)."""
    generator = np.random.default_rng(0)
    for split, count in _COUNTS.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            angle = float(generator.uniform(0.0, math.pi))
            corners = bar_corners(generator.uniform(16.0, SIDE - 16.0, 2), angle)
            pixels = generator.integers(80, 120, (SIDE, SIDE, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels)
            ImageDraw.Draw(picture).polygon([(x, y) for x, y in corners.tolist()], fill=(230, 230, 230))
            picture.save(folder / "images" / split / f"{index}.png")
            values = pose_label(corners) if task == "pose" else obb_label(corners)
            line = " ".join(["0", *(f"{value:.6f}" for value in values)])
            (folder / "labels" / split / f"{index}.txt").write_text(line + "\n")
    content: dict[str, Any] = {"path": str(folder), "names": ["bar"]}
    content |= {split: f"images/{split}" for split in _COUNTS}
    if task == "pose":
        content |= {"kpt_shape": [2, 3], "flip_idx": [0, 1]}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


def bar_corners(centre: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    """Return the corners of a bar, (4, 2) xy in pixels, in turn; the first two are one short side."""
    along = np.array([math.cos(angle), math.sin(angle)]) * _LENGTH / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * _THICKNESS / 2
    corners = np.array([along - across, along + across, across - along, -along - across])
    corners += centre
    return corners


def obb_label(corners: npt.NDArray[np.float64]) -> list[float]:
    """Return x1 y1 … x4 y4, in fractions of the image."""
    return [float(value) for value in (corners / SIDE).ravel()]


def pose_label(corners: npt.NDArray[np.float64]) -> list[float]:
    """Return the box x y w h and, for each end of the bar, x y and 2 (visible); in fractions of the image."""
    low, high = corners.min(axis=0) / SIDE, corners.max(axis=0) / SIDE
    ends = [corners[:2].mean(axis=0) / SIDE, corners[2:].mean(axis=0) / SIDE]
    box = [*(low + high) / 2, *(high - low)]
    return [float(value) for value in (*box, *(part for end in ends for part in (*end, 2)))]


def narrow_model(version: str, task: str, data: Path, folder: Path) -> Path:
    """Return the yaml of this version's model for a task and a data set, with all its blocks at a sixteenth of width.

    Args:
        version: One of VERSIONS.
        task: One of SUFFIXES.
        data: What `task_data` returned.
        folder: Where the yaml goes.
    """
    from ultralytics.nn.tasks import yaml_model_load

    name = f"{version}{SUFFIXES[task]}.yaml"
    content = yaml_model_load(name) | {"scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    described = {} if task == "classify" else yaml.safe_load(data.read_text())
    content["nc"] = len(described["names"]) if described else len(list((data / "train").iterdir()))
    if "kpt_shape" in described:
        content["kpt_shape"] = described["kpt_shape"]
    content.pop("yaml_file", None)
    file = folder / name
    file.write_text(yaml.safe_dump(content))
    return file
