"""The dataset of a training as input of its run, from what Ultralytics has already loaded: no image is opened again."""

import hashlib
import os.path
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAX_CLASSES = 100


@dataclass(frozen=True)
class LoadedSplit:
    """One split as Ultralytics loaded it.

    Attributes:
        n_images: Number of images.
        n_backgrounds: Images without an object.
        objects: Number of objects by class id; for classification, of images.
        digest: SHA-256 over image names and labels.
    """

    n_images: int
    n_backgrounds: int
    objects: Mapping[int, int]
    digest: bytes


@dataclass(frozen=True)
class LoadedData:
    """A dataset as Ultralytics loaded it.

    Attributes:
        name: The stem of data.yaml, or its folder's name when the file is called data.yaml, as `load_dataset` names it.
        source: Path of data.yaml, or of a classification folder.
        digest: 16 hex digits over class names, image names and labels. Unlike the fingerprint of `load_dataset` it
            does not cover pixels: reading every image again would delay the training.
        profile: Images, backgrounds and objects by split, and objects by class.
    """

    name: str
    source: str
    digest: str
    profile: Mapping[str, Any]


def read_loaded_data(source: str, *, names: Mapping[int, str], splits: Mapping[str, Any]) -> LoadedData:
    """Return the dataset behind Ultralytics' dataset objects.

    Args:
        source: What the trainer was given as `data`.
        names: Class names by id.
        splits: Ultralytics' dataset object by split name.
    """
    read = {split: _read_split(dataset) for split, dataset in splits.items()}
    digest = hashlib.sha256(repr(list(names.values())).encode())
    for split, found in sorted(read.items()):
        digest.update(split.encode() + found.digest)
    profile: dict[str, Any] = {
        split: {"images": found.n_images, "backgrounds": found.n_backgrounds, "objects": sum(found.objects.values())}
        for split, found in read.items()
    }
    if len(names) <= _MAX_CLASSES:
        profile["classes"] = {
            name: {split: found.objects.get(index, 0) for split, found in read.items()} for index, name in names.items()
        }
    path = Path(source)
    return LoadedData(
        name=path.parent.name if path.stem == "data" and path.suffix else path.stem if path.suffix else path.name,
        source=source,
        digest=digest.hexdigest()[:16],
        profile={**profile, "digest_of": "class names, image names and labels"},
    )


def _read_split(dataset: Any) -> LoadedSplit:
    rows = list(_rows(dataset))
    root = _common_folder(name for name, _, _ in rows)
    digest = hashlib.sha256()
    objects: Counter[int] = Counter()
    n_backgrounds = 0
    for name, classes, shapes in rows:
        digest.update(name[len(root) :].encode("utf-8", "surrogateescape"))
        digest.update(classes.astype(np.int64).tobytes())
        digest.update(np.ascontiguousarray(shapes, dtype=np.float32).tobytes())
        objects.update(classes.astype(int).tolist())
        n_backgrounds += not classes.size
    return LoadedSplit(len(rows), n_backgrounds, objects, digest.digest())


def _rows(dataset: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield of every image its file, its classes (n,) and its boxes, polygons and key points in one row, by file."""
    if hasattr(dataset, "samples"):  # classification: [file, class, ...]
        for sample in sorted(dataset.samples, key=lambda sample: str(sample[0])):
            yield str(sample[0]), np.array([sample[1]]), np.zeros(0)
        return
    for label in sorted(dataset.labels, key=lambda label: str(label["im_file"])):
        shapes = [label["bboxes"], label.get("keypoints"), *(label.get("segments") or ())]
        flat = [np.asarray(shape, dtype=np.float32).reshape(-1) for shape in shapes if shape is not None]
        yield str(label["im_file"]), np.asarray(label["cls"]).reshape(-1), np.concatenate(flat)


def _common_folder(names: Iterable[str]) -> str:
    """Return the folder all files are in, so that a moved dataset keeps its digest."""
    folders = {str(Path(name).parent) for name in names}
    if not folders:
        return ""
    return os.path.commonpath(folders)
