"""The images that the ranges of a quantized model come from: chosen from the training split, recorded by name and hash.

Calibrating on the split that is scored afterwards flatters the score; Ultralytics' own export takes `val` by default.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.pipeline import Pipeline

N_IMAGES = 200
"""Images by default: 100 to 300 are usual, and the ranges of BCCD no longer move beyond 100."""


@dataclass(frozen=True)
class CalibrationSet:
    """Images to calibrate on.

    Attributes:
        files: Their absolute paths.
        names: Their names, relative to the data set's folder.
        sha256: Digest over names and bytes, in this order.
        split: The split that they are from.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: str
    split: str

    def record(self) -> dict[str, Any]:
        """Return what a variant keeps of it."""
        return {"split": self.split, "n": len(self.files), "sha256": self.sha256, "files": list(self.names)}


def choose_calibration(dataset: Dataset, n: int = N_IMAGES, seed: int = 0, split: str = "train") -> CalibrationSet:
    """Return `n` images of a split, drawn without replacement; all of them where it has no more.

    Raises:
        ArgumentError: The split is missing or empty, or `n` is not positive.
    """
    if n < 1:
        raise ArgumentError(f"n={n} is no number of calibration images. Use 1 or more; 100 to 300 are usual.")
    images = dataset.splits[split].images if split in dataset.splits else ()
    if not images:
        raise ArgumentError(
            f"the {split} split of data={dataset.name} has no images to calibrate on. Name a split that has some."
        )
    chosen = np.random.default_rng(seed).permutation(len(images))[:n]
    return calibration_set([images[index] for index in sorted(chosen)], root=dataset.root, split=split)


def calibration_set(files: Sequence[Path], *, root: Path, split: str) -> CalibrationSet:
    """Return the calibration set of these files, named relative to `root` where they lie below it.

    Raises:
        ArgumentError: There are none, or one cannot be read.
    """
    if not files:
        raise ArgumentError(f"there are no images to calibrate on in the {split} split. Name some.")
    names = tuple(_name(file, root) for file in files)
    total = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise ArgumentError(
                f"calibration image {file} cannot be read: {error.strerror or error}. Restore it, or choose again."
            ) from error
        total.update(f"{content}  {name}\n".encode())
    return CalibrationSet(tuple(files), names, total.hexdigest(), split)


def batches(pipeline: Pipeline, files: Sequence[Path]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield every image as the model gets it, (1, C, H, W), float32."""
    for file in files:
        batch, _ = pipeline.preprocess([read_image(file, channels=pipeline.variant.channels)])
        yield batch


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
