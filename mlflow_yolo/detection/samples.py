"""One image's ground truth and detections, and the file that keeps those of a whole split."""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Floats, Ints
from mlflow_yolo.exceptions import InputError, ShapeError

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Sample:
    """One image: what is there and what was detected.

    Attributes:
        image: Name of the image, relative and unique within its split; pairs the samples of different models.
        height: Height of the original image, pixels.
        width: Width of the original image, pixels.
        gt_boxes: (M, 4) xyxy, pixels of the original image; (0, 4) for a background image.
        gt_classes: (M,) class ids.
        boxes: (N, 4) xyxy of the detections, pixels of the original image, in any order.
        scores: (N,) confidences.
        classes: (N,) class ids.

    Raises:
        ShapeError: Boxes are not (n, 4), or boxes, scores and classes differ in length.
    """

    image: str
    height: int
    width: int
    gt_boxes: Floats
    gt_classes: Ints
    boxes: Floats
    scores: Floats
    classes: Ints

    def __post_init__(self) -> None:
        n_gt, n = len(self.gt_boxes), len(self.boxes)
        expected = {"gt_boxes": (n_gt, 4), "gt_classes": (n_gt,), "boxes": (n, 4), "scores": (n,), "classes": (n,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                found = getattr(self, name).shape
                raise ShapeError(f"{name} of {self.image!r} has shape {found}, expected {shape}: one row per box.")


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples to one compressed .npz file; a reader sees the old file or the new one, never half of one.

    Args:
        path: The file to write; its folder must exist.
        samples: The samples, in the order in which they will be read.
    """
    arrays = {
        "format": np.array(_FORMAT),
        "image": np.array([s.image for s in samples], dtype=np.str_),
        "size": np.array([(s.height, s.width) for s in samples], dtype=np.int64).reshape(-1, 2),
        "n_gt": np.array([len(s.gt_boxes) for s in samples], dtype=np.int64),
        "n": np.array([len(s.boxes) for s in samples], dtype=np.int64),
        "gt_boxes": _joined(samples, lambda s: s.gt_boxes, np.zeros((0, 4))),
        "gt_classes": _joined(samples, lambda s: s.gt_classes, np.zeros(0, dtype=np.int64)),
        "boxes": _joined(samples, lambda s: s.boxes, np.zeros((0, 4))),
        "scores": _joined(samples, lambda s: s.scores, np.zeros(0)),
        "classes": _joined(samples, lambda s: s.classes, np.zeros(0, dtype=np.int64)),
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide an artifact from other users
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_samples(path: Path) -> list[Sample]:
    """Return the samples that `save_samples` wrote, in their order.

    Args:
        path: The .npz file.

    Raises:
        InputError: The file is missing, damaged or of another format.
    """
    try:
        # opened here: np.load leaves a truncated file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays: dict[str, npt.NDArray[Any]] = {name: file[name] for name in file.files}
        if arrays["format"] == _FORMAT:
            return _split(arrays)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: measure the checkpoint first.") from None
    # What numpy, zipfile and zlib raise on other kinds of files, on truncated ones and on missing or too short arrays.
    except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a readable samples file ({error}): measure the checkpoint again.") from error
    raise InputError(f"{path} has format {arrays['format']}, this version reads {_FORMAT}: measure it again.")


def _joined(samples: Sequence[Sample], get: Callable[[Sample], npt.NDArray[Any]], empty: Any) -> npt.NDArray[Any]:
    """Return one array of all samples; `empty` gives its shape and type."""
    return np.concatenate([empty, *(get(sample) for sample in samples)]).astype(empty.dtype)


def _split(arrays: dict[str, npt.NDArray[Any]]) -> list[Sample]:
    """Return one sample per image from the flat arrays."""
    gt_ends, ends = np.cumsum(arrays["n_gt"]), np.cumsum(arrays["n"])
    samples = []
    for index, (image, size) in enumerate(zip(arrays["image"], arrays["size"], strict=True)):
        gt = slice(gt_ends[index] - arrays["n_gt"][index], gt_ends[index])
        found = slice(ends[index] - arrays["n"][index], ends[index])
        samples.append(
            Sample(
                image=str(image),
                height=int(size[0]),
                width=int(size[1]),
                gt_boxes=arrays["gt_boxes"][gt],
                gt_classes=arrays["gt_classes"][gt],
                boxes=arrays["boxes"][found],
                scores=arrays["scores"][found],
                classes=arrays["classes"][found],
            )
        )
    return samples
