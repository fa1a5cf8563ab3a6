"""What a checkpoint or a variant scores, all by one evaluator: unclipped boxes, square inputs, one split."""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.agreement import agreement
from mlflow_yolo.detection.bootstrap import Difference, bootstrap_map, bootstrap_mean
from mlflow_yolo.detection.evaluation import evaluate
from mlflow_yolo.detection.samples import Sample, load_samples, save_samples
from mlflow_yolo.exceptions import InputError
from mlflow_yolo.runtime.pipeline import Pipeline
from mlflow_yolo.runtime.scoring import probabilities_of, samples_of

Progress = Callable[[int, int], None]

IOU, MAX_DET = 0.7, 300
"""Suppression and detections per image, Ultralytics' own defaults."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What was scored on a split.

    Attributes:
        split: The split.
        n_images: Its images.
        values: `mAP50-95`, `mAP50`, `precision`, `recall`, `f1` at `conf`; for classification `top1`, `top5`.
        per_class: AP50-95 by class name, for classification the share of a class' images that were named right; nan
            for a class that does not occur.
        conf: The confidence with the best mean F1; nan for classification.
        samples: Ground truth and detections per image; empty for classification.
        correct: (N,) whether each image was named right; empty for detection.
        predicted: (N,) the class each image was given; empty for detection.
        true: (N,) the class each image has; empty for detection.
    """

    split: str
    n_images: int
    values: dict[str, float]
    per_class: dict[str, float]
    conf: float
    samples: Sequence[Sample] = ()
    correct: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    predicted: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    true: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def headline(self) -> tuple[str, float]:
        """The value that variants are compared by: mAP50-95, or top1."""
        name = "top1" if "top1" in self.values else "mAP50-95"
        return name, self.values[name]

    @property
    def worst_class(self) -> tuple[str, float]:
        """The class with the lowest score, of those that occur."""
        present = {name: value for name, value in self.per_class.items() if not np.isnan(value)}
        name = min(present, key=lambda one: present[one], default="")
        return name, present.get(name, float("nan"))

    @property
    def operating_point(self) -> dict[str, Any]:
        """Thresholds for `variant.json`: the confidence with the best mean F1 here; empty for classification."""
        if np.isnan(self.conf):
            return {}
        return {"conf": round(self.conf, 6), "iou": IOU, "max_det": MAX_DET, "split": self.split, "objective": "f1"}


def measure_accuracy(
    open_pipeline: Callable[[], Pipeline],
    dataset: Dataset,
    split: str,
    *,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Accuracy:
    """Return what a checkpoint or a variant scores on a split.

    Args:
        open_pipeline: Opens it; not called where its predictions were kept.
        dataset: The data.
        split: One of its splits.
        keep: A file for the predictions. Where it exists they are read from it instead of being made.
        progress: Told how many images were done, and of how many.
    """
    if dataset.task == "classify":
        return _classified(split, dataset.names, *_probabilities(open_pipeline, dataset, split, keep, progress))
    if keep is not None and keep.is_file():
        samples = load_samples(keep)
    else:
        samples = samples_of(open_pipeline(), dataset, split, iou=IOU, max_det=MAX_DET, progress=progress)
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            save_samples(keep, samples)
    return _detected(split, dataset.names, samples)


def read_accuracy(kept: Path, *, names: tuple[str, ...], task: str, split: str) -> Accuracy:
    """Return what the predictions score that `measure_accuracy` kept, without model and data.

    Args:
        kept: The file.
        names: Class names by id.
        task: `classify` or any other.
        split: The split that they were made on.

    Raises:
        InputError: The file is missing or damaged, or its classes are not `names`.
    """
    if task == "classify":
        true, probabilities = _load_probabilities(kept)
        if probabilities.shape != (len(true), len(names)) or not set(true.tolist()) <= set(range(len(names))):
            raise InputError(f"{kept} is not about {len(names)} classes: measure the model again.")
        numbers = [probabilities]
    else:
        samples = load_samples(kept)
        numbers = [values for one in samples for values in (one.boxes, one.scores, one.gt_boxes)]
    if not all(np.isfinite(values).all() for values in numbers):
        raise InputError(f"{kept} holds what is not a number: measure the model again.")
    return _classified(split, names, true, probabilities) if task == "classify" else _detected(split, names, samples)


def difference(reference: Accuracy, other: Accuracy, *, n_classes: int) -> Difference:
    """Return how far the headline value of `other` lies from that of `reference`, with its interval over images.

    Raises:
        InputError: They are not of the same images with the same labels.
    """
    if len(reference.correct):
        _check_images(reference, other)
        values = {"reference": [reference.correct], "other": [other.correct]}
        return bootstrap_mean(values, baseline="reference")["other"]
    samples = {"reference": [reference.samples], "other": [other.samples]}
    return bootstrap_map(samples, baseline="reference", n_classes=n_classes)["other"]


def agreement_with(reference: Accuracy, other: Accuracy) -> float:
    """Return how far two agree on what is in the images, in [0, 1].

    The F1 of one's detections against the other's at the reference's operating point (same class, IoU 0.5); for
    classification the share of images that both name the same.

    Raises:
        InputError: They are not of the same images.
    """
    if len(reference.correct):
        _check_images(reference, other)
        return float((reference.predicted == other.predicted).mean())
    return agreement(reference.samples, other.samples, conf=reference.conf).f1


def _check_images(reference: Accuracy, other: Accuracy) -> None:
    """Raise unless two classifiers saw as many images of the same classes; their names were not kept."""
    if len(reference.correct) != len(other.correct) or not np.array_equal(reference.true, other.true):
        n_reference, n_other = len(reference.correct), len(other.correct)
        raise InputError(
            f"{n_reference} images of {reference.split} and {n_other} of {other.split} are not the same images in the "
            "same order: measure both on the same split."
        )


def _detected(split: str, names: tuple[str, ...], samples: Sequence[Sample]) -> Accuracy:
    found = evaluate(samples, n_classes=len(names))
    return Accuracy(
        split=split,
        n_images=found.n_images,
        values={
            "mAP50-95": found.map50_95,
            "mAP50": found.map50,
            "precision": found.precision,
            "recall": found.recall,
            "f1": found.f1,
        },
        per_class=dict(zip(names, found.ap_per_class.tolist(), strict=True)),
        conf=found.conf,
        samples=samples,
    )


def _probabilities(
    open_pipeline: Callable[[], Pipeline], dataset: Dataset, split: str, keep: Path | None, progress: Progress | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    if keep is not None and keep.is_file():
        return _load_probabilities(keep)
    true, probabilities = probabilities_of(open_pipeline(), dataset, split, progress=progress)
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        unfinished = keep.with_name(f".{keep.name}.part.npz")
        np.savez_compressed(unfinished, true=true, probabilities=probabilities)
        unfinished.replace(keep)
    return true, probabilities


def _load_probabilities(kept: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    try:
        # opened here: np.load leaves a truncated file open
        with kept.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return file["true"].astype(np.int64).reshape(-1), file["probabilities"].astype(np.float64)
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{kept} holds no readable predictions ({error}): measure the model again.") from error


def _classified(
    split: str, names: tuple[str, ...], true: npt.NDArray[np.int64], probabilities: npt.NDArray[Any]
) -> Accuracy:
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    hits = ranked[:, :5] == true[:, None]
    correct = hits[:, 0].astype(np.float64)
    per_class = {
        name: float(correct[true == index].mean()) if (true == index).any() else float("nan")
        for index, name in enumerate(names)
    }
    return Accuracy(
        split=split,
        n_images=len(true),
        values={"top1": float(correct.mean()), "top5": float(hits.any(axis=1).mean())},
        per_class=per_class,
        conf=float("nan"),
        correct=correct,
        predicted=ranked[:, 0].astype(np.int64),
        true=true,
    )
