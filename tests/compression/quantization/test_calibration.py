"""Tests of the choice of calibration images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.compression.quantization.calibration import batches, calibration_set, choose_calibration
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.pipeline import open_pipeline


def test_images_are_from_the_training_split_without_repetition(dataset: Dataset) -> None:
    chosen = choose_calibration(dataset, n=5, seed=3)
    assert chosen.split == "train"
    assert len(set(chosen.files)) == 5
    assert set(chosen.files) <= set(dataset.splits["train"].images)
    assert chosen.names == tuple(f"images/train/{file.name}" for file in chosen.files)


def test_the_choice_depends_on_the_seed_alone(dataset: Dataset) -> None:
    assert choose_calibration(dataset, n=4, seed=1) == choose_calibration(dataset, n=4, seed=1)
    assert len({choose_calibration(dataset, n=4, seed=seed).files for seed in range(6)}) > 1


def test_more_than_there_are_is_all(dataset: Dataset) -> None:
    assert choose_calibration(dataset, n=1000).files == dataset.splits["train"].images


def test_the_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file, content in zip(files, (b"one", b"two"), strict=True):
        file.write_bytes(content)
    lines = f"{hashlib.sha256(b'one').hexdigest()}  a.png\n{hashlib.sha256(b'two').hexdigest()}  b.png\n"
    chosen = calibration_set(files, root=tmp_path, split="train")
    assert chosen.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert chosen.record() == {"split": "train", "n": 2, "sha256": chosen.sha256, "files": ["a.png", "b.png"]}


@pytest.mark.parametrize("split", ["train", "elsewhere"])
def test_an_empty_or_missing_split_is_refused(dataset: Dataset, split: str) -> None:
    empty = replace(dataset, splits={"train": replace(dataset.splits["train"], images=(), labels=())})
    with pytest.raises(ArgumentError, match=split):
        choose_calibration(empty, split=split)


def test_no_images_or_a_number_below_one_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="n=0"):
        choose_calibration(dataset, n=0)
    with pytest.raises(ArgumentError, match="no images"):
        calibration_set([], root=tmp_path, split="train")
    with pytest.raises(ArgumentError, match=r"gone\.png"):
        calibration_set([tmp_path / "gone.png"], root=tmp_path, split="train")


def test_images_come_as_the_model_gets_them(float_folder: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (batch,) = batches(open_pipeline(float_folder, threads=1), [tmp_path / "a.png"])
    np.testing.assert_array_equal(batch, (pixels.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32))
