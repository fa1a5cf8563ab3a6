"""An exported variant's raw output on a split, for every (conf, IoU, max_det) to be replayed: as a checkpoint's."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.boxes import Bools, xywhn_to_xyxy
from mlflow_yolo.detection.match_arrays import Values
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.candidates import Candidates, read_candidates, read_final
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.keeper import Keeper
from mlflow_yolo.models.mask_overlaps import draw_masks
from mlflow_yolo.models.replay import COLLECTORS, CONF
from mlflow_yolo.runtime.images import read_image
from mlflow_yolo.runtime.pipeline import Pipeline, open_pipeline
from mlflow_yolo.runtime.preprocess import Frame
from mlflow_yolo.runtime.scoring import check_names, read_boxes

_BATCH = 8


def collect_variant_heads(
    path: str | Path,
    dataset: Dataset,
    *,
    split: str,
    conf: float = CONF,
    directory: Path | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Heads:
    """Return what an exported detector says of every image of a split; it is run once.

    Images are letterboxed to the variant's own size, as where it is served.

    Args:
        path: The variant's folder, or what else `runtime.pipeline.open_pipeline` takes.
        dataset: The data; `split` must be one of its splits.
        split: `train`, `val` or `test`.
        conf: Lowest score that is kept; memory and time go by it.
        directory: Where prototypes of masks that do not fit into memory are kept, as long as the result is used; None
            keeps all in memory.
        threads: Threads that compute one image; None leaves it to the runtime.
        progress: Told after every batch how many images were done, and of how many.

    Raises:
        CheckpointError: The file cannot be opened, or its classes or outputs are not those of the data.
        ArgumentError: It is neither for detection nor for segmentation, or the split does not exist.
    """
    pipeline = open_pipeline(path, threads=threads)
    variant = pipeline.variant
    if variant.task not in COLLECTORS:
        raise ArgumentError(f"task={variant.task} has no boxes to suppress. Use a model for {' or '.join(COLLECTORS)}.")
    check_names(pipeline, dataset)
    if split not in dataset.splits:
        raise ArgumentError(f"split={split} is not in data={dataset.name}. It has {', '.join(dataset.splits)}.")
    files = dataset.splits[split]
    keeper = Keeper(directory)
    for start in range(0, len(files.images), _BATCH):
        here = slice(start, start + _BATCH)
        paths, labels = files.images[here], files.labels[here]
        batch, frames = pipeline.preprocess([read_image(one, channels=variant.channels) for one in paths])
        outputs = pipeline.infer(batch)
        for index, (image, label, frame) in enumerate(zip(paths, labels, frames, strict=True)):
            prediction = torch.from_numpy(np.asarray(outputs[0][index], np.float32))
            if variant.end2end:
                found = read_final(prediction, conf=conf)
            else:
                found = read_candidates(prediction, conf=conf, n_classes=len(variant.names))
            prototypes = np.asarray(outputs[1][index], np.float32) if len(outputs) > 1 else None
            _check_outputs(pipeline, found, prototypes)
            classes, boxes, masks = _objects(label, frame, variant.imgsz, draw=prototypes is not None)
            drawn = None if prototypes is None or masks is None else (prototypes, masks)
            keeper.add(os.path.relpath(image, dataset.root), found, boxes, classes, drawn)
        if progress is not None:
            progress(start + len(paths), len(files.images))
    return keeper.heads(names=variant.names, task=variant.task, split=split, conf=conf, end2end=variant.end2end)


def _objects(
    labels: Path | None, frame: Frame, shape: tuple[int, int], *, draw: bool
) -> tuple[Values, Values, Bools | None]:
    """Return an image's objects in the model's input: classes (M,), boxes (M, 4) and, with `draw`, masks."""
    classes, normalised = read_boxes(labels)
    height, width = frame.inner
    place = np.array([frame.left, frame.top])
    boxes = xywhn_to_xyxy(normalised, width=width, height=height) + np.tile(place, 2)
    order = np.arange(len(classes))
    masks = None
    if draw:
        polygons = [points * (width, height) + place for points in _polygons(labels)]
        masks, order = draw_masks(polygons, shape)
    return classes[order].astype(np.float32), boxes[order].astype(np.float32), masks


def _polygons(labels: Path | None) -> list[npt.NDArray[np.float32]]:
    """Return the outlines (P, 2) xy of a label file, fractions of the image, in the order of `read_boxes`."""
    lines = labels.read_text(encoding="utf-8-sig").splitlines() if labels is not None else []
    rows = {row.tobytes(): row for row in (np.array(line.split(), np.float32) for line in lines if line.strip())}
    return [row[1:].reshape(-1, 2) for row in rows.values()]


def _check_outputs(pipeline: Pipeline, found: Candidates, prototypes: Values | None) -> None:
    """Raise CheckpointError where a file's outputs are not those of its task and names."""
    variant, n_extra = pipeline.variant, found.extra.shape[1]
    wanted = 0 if variant.task == "detect" or prototypes is None else len(prototypes)
    if n_extra != wanted or (variant.task == "segment") != (prototypes is not None):
        raise CheckpointError(
            f"{variant.file} has {n_extra} further values a box beside {len(variant.names)} classes, which is not "
            f"what task={variant.task} needs. Export it again."
        )
