"""Finished trainings made by hand: every number in them is chosen, so that what follows can be computed on paper."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.blocks import Freeze
from mlflow_yolo.detection.samples import Sample, save_samples
from mlflow_yolo.studies.freeze.analysis import Child

N_IMAGES = 20
MakeChild = Callable[..., Child]


def freeze_of(word: str) -> Freeze:
    """Return the configuration of a depth, `backbone` (11 blocks) or `6-` (of 24 blocks)."""
    if word == "6-":
        return Freeze(word, tuple(range(6, 24)))
    return Freeze(word, tuple(range(11 if word == "backbone" else int(word))))


def samples_with(n_right: int) -> list[Sample]:
    """Return 20 images with one object each, of which the first `n_right` are found exactly and the rest not at all."""
    box, nothing = np.array([[8.0, 8.0, 40.0, 40.0]]), np.zeros((0, 4))
    return [
        Sample(
            image=f"images/{i:02d}.png",
            height=64,
            width=64,
            gt_boxes=box,
            gt_classes=np.array([i % 2]),
            boxes=box if i < n_right else nothing,
            scores=np.full(int(i < n_right), 0.9),
            classes=np.full(int(i < n_right), i % 2),
        )
        for i in range(N_IMAGES)
    ]


def labels_with(n_right: int) -> np.ndarray:
    """Return (20, 2) true and predicted classes of which the first `n_right` agree."""
    true = np.arange(N_IMAGES) % 2
    return np.stack([true, np.where(np.arange(N_IMAGES) < n_right, true, 1 - true)], axis=1)


@pytest.fixture
def make_child(tmp_path: Path) -> MakeChild:
    """Return a function that writes one finished training and returns it."""

    def make(
        word: str,
        seed: int,
        value: float,
        *,
        n_right: int | None = None,
        task: str = "detect",
        splits: Sequence[str] = ("val", "test"),
        **changed: Any,
    ) -> Child:
        directory = tmp_path / "study" / f"freeze-{word}_seed-{seed}"
        (directory / "predictions").mkdir(parents=True)
        metric, curve = ("top1", "accuracy_top1") if task == "classify" else ("mAP50-95", "mAP50-95B")
        for split in splits:
            path = directory / "predictions" / f"{split}.npz"
            if n_right is None:
                np.savez_compressed(path, labels=np.zeros((0, 2), dtype=np.int64))
            elif task == "classify":
                np.savez_compressed(path, labels=labels_with(n_right))
            else:
                save_samples(path, samples_with(n_right))
        result = {
            "status": "finished",
            "task": task,
            "names": ["bright", "dark"],
            # Another value on val than on test: a table that mixes them up is wrong.
            "measured": {
                split: {"values": {metric: value if split == splits[-1] else 0.01}, "n_images": N_IMAGES}
                for split in splits
            },
            "predictions": {split: f"predictions/{split}.npz" for split in splits},
            "operating_conf": 0.5,
            "curves": {f"metrics/{curve}": [value / 2, value]},
            "train_s": 4.0,
            "seconds_per_epoch_mean": 2.0,
            "parameters_trainable": 1000.0,
            "peak_memory_mb": 100.0,
            "overfit_gap": 0.125,
            **changed,
        }
        (directory / "result.json").write_text(json.dumps(result))
        return Child(freeze_of(word), seed, directory, json.loads((directory / "result.json").read_text()))

    return make


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """Return the folder with the images that the samples name."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for i in range(N_IMAGES):
        Image.new("RGB", (64, 64), (10 * i, 90, 90)).save(tmp_path / "data" / "images" / f"{i:02d}.png")
    return tmp_path / "data"
