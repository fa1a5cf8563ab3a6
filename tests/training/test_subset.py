"""The fixed training subset: evenly spaced, as many images as val has, made once, nothing left beside the data."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.training import subset
from mlflow_yolo.training.subset import train_subset


def test_as_many_evenly_spaced_images_as_val_has_with_their_own_labels(small_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(small_data)
    found = train_subset(dataset, tmp_path / "shared")

    val, train = found.splits["val"], dataset.splits["train"]
    assert [image.resolve() for image in val.images] == [train.images[i].resolve() for i in (0, 2, 4, 6)]
    for label, i in zip(val.labels, (0, 2, 4, 6), strict=True):
        assert label is not None
        assert label.read_text() == train.labels[i].read_text()
    assert found.names == dataset.names


def test_val_larger_than_train_takes_all_of_train(small_data: Path, tmp_path: Path) -> None:
    content = {"path": str(small_data.parent), "train": "images/val", "val": "images/train", "names": ["a", "b"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))

    found = train_subset(load_dataset(tmp_path / "data.yaml"), tmp_path / "shared")
    assert found.splits["val"].n_images == 4


def test_a_second_training_uses_the_same_subset(small_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(small_data)
    first = train_subset(dataset, tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "train_subset").rglob("*.png")}
    second = train_subset(dataset, tmp_path)

    assert second.fingerprint == first.fingerprint
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "train_subset").rglob("*.png")} == before


def test_nothing_is_written_beside_the_users_images(small_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(small_data.parent, copy, ignore=shutil.ignore_patterns("*.cache"))
    content = yaml.safe_load((copy / "data.yaml").read_text()) | {"path": str(copy)}
    (copy / "data.yaml").write_text(yaml.safe_dump(content))
    before = sorted(copy.rglob("*"))
    train_subset(load_dataset(copy / "data.yaml"), tmp_path / "shared")

    assert sorted(copy.rglob("*")) == before


def test_background_images_stay_backgrounds(small_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(small_data.parent, copy, ignore=shutil.ignore_patterns("*.cache"))
    (copy / "labels" / "train" / "train0.txt").unlink()
    content = yaml.safe_load((copy / "data.yaml").read_text()) | {"path": str(copy)}
    (copy / "data.yaml").write_text(yaml.safe_dump(content))

    found = train_subset(load_dataset(copy / "data.yaml"), tmp_path / "shared")
    assert found.splits["val"].n_backgrounds == 1


def test_images_of_the_same_name_in_two_folders_do_not_meet(small_data: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for kind in ("images", "labels"):
            shutil.copytree(small_data.parent / kind / "train", tmp_path / "data" / kind / folder)
    content = {
        "path": str(tmp_path / "data"),
        "train": ["images/one", "images/two"],
        "val": ["images/one", "images/two"],
        "names": ["a", "b"],
    }
    (tmp_path / "data" / "data.yaml").write_text(yaml.safe_dump(content))

    found = train_subset(load_dataset(tmp_path / "data" / "data.yaml"), tmp_path / "shared")
    assert found.splits["val"].n_images == 16


def test_a_classification_subset_keeps_every_class_folder(tmp_path: Path) -> None:
    root = generate("digits-cls", cache_dir=tmp_path / "cache", imgsz=32, n_train=12, n_val=3, n_test=2)
    dataset = load_dataset(root)

    found = train_subset(dataset, tmp_path / "shared")
    assert (found.task, found.names, found.splits["val"].n_images) == ("classify", dataset.names, 3)


def test_a_file_system_without_links_gets_copies(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    subset._put(small_data, tmp_path / "copies" / "data.yaml")

    assert (tmp_path / "copies" / "data.yaml").read_bytes() == small_data.read_bytes()
    assert not (tmp_path / "copies" / "data.yaml").is_symlink()
