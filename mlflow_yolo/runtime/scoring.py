"""A whole split through one pipeline: the same evaluator for every variant, the checkpoint included.

Every image is letterboxed to the model's own size (`rect=False`), an anchor may be found once for each of its classes
and boxes are not clipped, whatever the model's format: so that a difference between two variants is one of precision,
not of padding.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlflow_yolo.datasets.dataset import Dataset, Split
from mlflow_yolo.detection.boxes import Floats, Ints, xywhn_to_xyxy
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import Pixels, read_image
from mlflow_yolo.runtime.pipeline import Pipeline

_BOX_COLUMNS = 5

Progress = Callable[[int, int], None]


def samples_of(
    pipeline: Pipeline,
    dataset: Dataset,
    split: str,
    *,
    conf: float = 0.001,
    iou: float = 0.7,
    max_det: int = 300,
    batch: int = 8,
    progress: Progress | None = None,
) -> list[Sample]:
    """Return ground truth and detections of every image of a split, in its order.

    Args:
        pipeline: An open detector or segmentation model; of the second the boxes count.
        dataset: The data, of detection or segmentation.
        split: `train`, `val` or `test`.
        conf: Score that a detection is above; the default is Ultralytics' own for validation, as the next two.
        iou: Largest overlap of two detections of one class.
        max_det: Largest number of detections an image.
        batch: Images that are preprocessed and run together.
        progress: Told after every batch how many images were done, and of how many.

    Returns:
        Boxes in pixels of the original image, not clipped to it.

    Raises:
        ArgumentError: The split does not exist or an image cannot be read.
        CheckpointError: The model is a classifier, or its class names are not those of the data.
    """
    check_names(pipeline, dataset)
    root, labels = dataset.root, _split(dataset, split).labels
    samples: list[Sample] = []
    for paths, images, found in _detect(
        pipeline, dataset, split, batch, progress, conf=conf, iou=iou, max_det=max_det, multi_label=True
    ):
        for path, image, detections in zip(paths, images, found, strict=True):
            height, width = image.shape[:2]
            classes, boxes = read_boxes(labels[len(samples)])
            samples.append(
                Sample(
                    image=os.path.relpath(path, root),
                    height=height,
                    width=width,
                    gt_boxes=xywhn_to_xyxy(boxes, width=width, height=height),
                    gt_classes=classes,
                    boxes=detections.boxes,
                    scores=detections.scores,
                    classes=detections.classes,
                )
            )
    return samples


def probabilities_of(
    pipeline: Pipeline, dataset: Dataset, split: str, *, batch: int = 8, progress: Progress | None = None
) -> tuple[Ints, Floats]:
    """Return the true class and the model's probabilities of every image of a split, in its order.

    Args:
        pipeline: An open classifier.
        dataset: The data, of classification.
        split: `train`, `val` or `test`.
        batch: Images that are preprocessed and run together.
        progress: Told after every batch how many images were done, and of how many.

    Returns:
        (N,) class ids and (N, C) probabilities.

    Raises:
        ArgumentError: The split does not exist or an image cannot be read.
        CheckpointError: The model is no classifier, or its class names are not those of the data.
    """
    check_names(pipeline, dataset)
    true = np.repeat(np.arange(len(dataset.names)), _split(dataset, split).objects_per_class)
    rows = [one.probabilities for _, _, found in _detect(pipeline, dataset, split, batch, progress) for one in found]
    return true.astype(np.int64), np.array(rows, dtype=np.float64).reshape(len(true), len(dataset.names))


def check_names(pipeline: Pipeline, dataset: Dataset) -> None:
    """Check that a model can be scored on a data set: both classify or both find, and their class names are equal.

    Raises:
        CheckpointError: They do not fit; both are named.
    """
    variant = pipeline.variant
    if (variant.task == "classify") != (dataset.task == "classify"):
        raise CheckpointError(
            f"{variant.file} has task={variant.task}, but data={dataset.name} is for task={dataset.task}. "
            "Use a model and data of one task."
        )
    if variant.names != dataset.names:
        raise CheckpointError(
            f"{variant.file} knows the classes {_listed(variant.names)}, but data={dataset.name} has "
            f"{_listed(dataset.names)}. Use the data that it was trained for."
        )


def read_boxes(labels: Path | None) -> tuple[Ints, Floats]:
    """Return classes (M,) and boxes (M, 4) of a label file: centre x, centre y, width, height as fractions.

    A polygon counts as the box around its points, and equal rows count once. Without a file, or with an empty one,
    there are none.

    Source: `ultralytics.data.utils.verify_image_label` (8.4), in single precision as there.
    """
    lines = labels.read_text(encoding="utf-8-sig").splitlines() if labels is not None else []
    rows = [np.array(line.split(), dtype=np.float32) for line in lines if line.strip()]
    unique = {row.tobytes(): row for row in rows}.values()
    classes = np.array([row[0] for row in unique], dtype=np.int64)
    boxes = np.array([_box_of(row[1:]) for row in unique], dtype=np.float64).reshape(-1, 4)
    return classes, boxes


def _box_of(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(values) < _BOX_COLUMNS:
        return values
    points = values.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low])


def _detect(
    pipeline: Pipeline, dataset: Dataset, split: str, batch: int, progress: Progress | None, **selection: float
) -> Iterator[tuple[tuple[Path, ...], list[Pixels], list[Detections]]]:
    """Yield the paths, pixels and detections of a split, batch by batch."""
    paths = _split(dataset, split).images
    if batch < 1:
        raise ArgumentError(f"batch={batch} runs nothing. Use 1 or more.")
    for start in range(0, len(paths), batch):
        some = paths[start : start + batch]
        images = [read_image(path, channels=pipeline.variant.channels) for path in some]
        yield some, images, pipeline(images, clip=False, masks=False, **selection)
        if progress is not None:
            progress(start + len(some), len(paths))


def _split(dataset: Dataset, split: str) -> Split:
    if split not in dataset.splits:
        raise ArgumentError(f"split={split} is not in data={dataset.name}. It has {', '.join(dataset.splits)}.")
    return dataset.splits[split]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
