"""A fixed part of the training split, seen without augmentation: what the overfitting gap is measured on."""

import os
import shutil
from pathlib import Path

import yaml

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.models.data import localise


def train_subset(dataset: Dataset, directory: Path) -> Dataset:
    """Return a dataset whose `val` split is as many evenly spaced training images as the real one has.

    Nothing is copied where the file system has links, and Ultralytics' label cache stays out of the user's folders.

    Args:
        dataset: The data.
        directory: Where the links are made; an existing subset there is used again.
    """
    root = directory / "train_subset"
    if not root.exists():
        unfinished = directory / f".train_subset.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        _link(dataset, unfinished)
        unfinished.rename(root)
    return localise(load_dataset(root if dataset.task == "classify" else root / "data.yaml", task=dataset.task), root)


def _link(dataset: Dataset, root: Path) -> None:
    train = dataset.splits["train"]
    count = min(train.n_images, dataset.splits["val"].n_images)
    chosen = [index * train.n_images // count for index in range(count)]
    for position, index in enumerate(chosen):
        image, label = train.images[index], train.labels[index]
        if dataset.task == "classify":
            _put(image, root / "val" / image.parent.name / f"{position:06d}_{image.name}")
            continue
        name = f"{position:06d}_{image.stem}"
        _put(image, root / "images" / f"{name}{image.suffix}")
        if label is not None and label.is_file():
            _put(label, root / "labels" / f"{name}.txt")
    if dataset.task == "classify":
        for name in dataset.names:
            (root / "val" / name).mkdir(parents=True, exist_ok=True)
        (root / "train").symlink_to("val", target_is_directory=True)
        return
    given = yaml.safe_load(dataset.yaml.read_text())
    kept = {key: given[key] for key in ("kpt_shape", "flip_idx", "channels") if key in given}
    content = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(dataset.names)), **kept}
    (root / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def _put(source: Path, target: Path) -> None:
    """Link `target` to `source`, or copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
