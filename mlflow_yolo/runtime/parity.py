"""How far two forms of one model are apart in their raw output, before any threshold hides it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.images import Pixels
from mlflow_yolo.runtime.pipeline import Pipeline

SURE = 0.05
"""Boxes count from this score in either model; below, a box that nobody sees may lie anywhere."""

MAX_SCORE, MAX_BOX_PX = 1e-3, 1.0
"""What two forms in single precision may differ by: facts, "Registry", gate 2."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """The difference of two models' raw outputs over some images; not a number where an output is none.

    Attributes:
        score_max: Largest difference of a score.
        score_p99: 99th percentile of the differences of scores above `SURE` in either model.
        box_max_px: Largest difference of a corner where a score is above `SURE`, pixels of the input; infinite where
            one model finds a box that the other has not at all.
        box_p99_px: Their 99th percentile, pixels.
        n_images: Number of images.
    """

    score_max: float
    score_p99: float
    box_max_px: float
    box_p99_px: float
    n_images: int

    @property
    def holds(self) -> bool:
        """Whether this is no more than single precision explains: 1e-3 in scores and 1 pixel in boxes."""
        return self.score_max <= MAX_SCORE and self.box_max_px <= MAX_BOX_PX


def parity(a: Pipeline, b: Pipeline, images: Sequence[Pixels]) -> Parity:
    """Return how far `b` is from `a`.

    Anchors are compared with themselves. A head that suppresses by itself returns a list sorted by score, in which a
    difference in the last digit swaps rows; there, scores are compared rank by rank and every box above `SURE` with
    the nearest one of its class.

    Args:
        a: One model.
        b: Another of the same task, classes and input size.
        images: As `read_image` gives them.

    Raises:
        ArgumentError: There are no images.
        CheckpointError: The two differ in task, classes, input size or output.
    """
    if not len(images):
        raise ArgumentError("images is empty: parity needs one image or more.")
    for name in ("task", "names", "imgsz", "end2end"):
        first, second = getattr(a.variant, name), getattr(b.variant, name)
        if first != second:
            raise CheckpointError(f"{name} differs: {first} in {a.variant.file}, {second} in {b.variant.file}.")
    scores: list[Values] = []
    sure: list[Values] = []
    boxes: list[Values] = []
    for image in images:
        batch, _ = a.preprocess([image])
        first, second = (np.asarray(pipeline.infer(batch)[0][0], np.float32) for pipeline in (a, b))
        if first.shape != second.shape:
            raise CheckpointError(f"outputs differ: {first.shape} in {a.variant.file}, {second.shape} in another.")
        for found, values in zip((scores, sure, boxes), _differences(first, second, a), strict=True):
            found.append(values)
    score, certain, box = (np.concatenate(values) for values in (scores, sure, boxes))
    return Parity(
        score_max=float(score.max(initial=0)),
        score_p99=_percentile(certain),
        box_max_px=float(box.max(initial=0)),
        box_p99_px=_percentile(box),
        n_images=len(images),
    )


def _differences(first: Values, second: Values, pipeline: Pipeline) -> tuple[Values, Values, Values]:
    """Return the differences of all scores, of scores above `SURE`, and of corners there."""
    none = np.zeros(0, np.float32)
    if pipeline.variant.task == "classify":
        score = np.abs(first - second)
        return score, score[~((first <= SURE) & (second <= SURE))], none
    if pipeline.variant.end2end:
        return _of_lists(first, second)
    end = 4 + len(pipeline.variant.names)
    score = np.abs(first[4:end] - second[4:end])
    seen = ~((first[4:end] <= SURE) & (second[4:end] <= SURE))
    corners = np.abs(_corners(first) - _corners(second))
    return score.ravel(), score[seen], corners[:, seen.any(axis=0)].ravel()


def _corners(prediction: Values) -> Values:
    """Return (4, A) xyxy of boxes given by centre and size."""
    centre, half = prediction[:2], prediction[2:4] / 2
    return np.concatenate([centre - half, centre + half])


def _of_lists(first: Values, second: Values) -> tuple[Values, Values, Values]:
    """Return the differences of two lists (N, 6 + E) of box, score and class."""
    score = np.abs(np.sort(first[:, 4]) - np.sort(second[:, 4]))
    sure, boxes = [], []
    for here, there in ((first, second), (second, first)):
        for row in here[~(here[:, 4] <= SURE)]:
            same = there[there[:, 5] == row[5]]
            distance = np.abs(same[:, :4] - row[:4])
            nearest = distance.max(axis=1).argmin() if len(same) else None
            boxes.append(np.full(4, np.inf, np.float32) if nearest is None else distance[nearest])
            sure.append(np.abs(row[4] - same[nearest, 4]) if nearest is not None else row[4])
    return score, np.array(sure, np.float32), np.array(boxes, np.float32).ravel()


def _percentile(values: Values) -> float:
    # Not between two values: one may be infinite.
    return float(np.percentile(values, 99, method="higher")) if len(values) else 0.0
