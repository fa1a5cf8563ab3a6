"""Detections of a split by falling score: how many of each class count, and how many are right, above any threshold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.match_arrays import MatchArrays, Values
from mlflow_yolo.exceptions import ShapeError


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """What is counted in each image, at thresholds that were chosen.

    Attributes:
        tp: (I, C) right detections by image and class.
        seen: (I, C) detections that count.
        objects: (I, C) objects.
    """

    tp: sparse.csr_array
    seen: sparse.csr_array
    objects: sparse.csr_array

    def __add__(self, other: "ImageCounts") -> "ImageCounts":
        """Return the counts of both, image by image."""
        return ImageCounts(self.tp + other.tp, self.seen + other.seen, self.objects + other.objects)

    def totals(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return right detections, detections and objects (B, C) of B weightings (B, I) of the images."""
        tp, seen, objects = (np.asarray((part.T @ weights.T).T) for part in (self.tp, self.seen, self.objects))
        return tp, seen, objects


@dataclass(frozen=True, eq=False)
class Ranking:
    """Detections by falling score, and the objects. A detection counts where its score is above a threshold.

    Attributes:
        score: (N,) scores, falling; of equal ones those of earlier images first.
        class_id: (N,) class.
        right: (N,) whether the detection is right at the overlap that was asked for.
        image: (N,) index of the image.
        target_class: (M,) class of every object.
        target_image: (M,) index of its image.
        n_images: Images that are looked at.
        n_classes: C.
        n_indices: I, one more than the greatest index of an image; above `n_images` for a part of a split.
    """

    score: Values
    class_id: Ints
    right: Bools
    image: Ints
    target_class: Ints
    target_image: Ints
    n_images: int
    n_classes: int
    n_indices: int

    @classmethod
    def of(cls, arrays: MatchArrays, *, level: int = 0, masks: bool = False) -> "Ranking":
        """Return the ranking of what was detected.

        Args:
            arrays: Ultralytics' statistics of a split.
            level: Index of the IoU threshold from which a detection is right: 0 for .50, 9 for .95.
            masks: Judge by the overlap of masks instead of boxes.

        Raises:
            ShapeError: There are no masks to judge by.
        """
        tp = arrays.tp_mask if masks else arrays.tp
        if tp is None:
            raise ShapeError("the arrays hold no verdicts on masks: the model makes none. Judge by boxes.")
        order = np.argsort(-arrays.conf, kind="stable")
        return cls(
            score=arrays.conf[order],
            class_id=arrays.pred_cls[order].astype(np.int64),
            right=tp[order, level],
            image=arrays.image[order],
            target_class=arrays.target_cls.astype(np.int64),
            target_image=arrays.target_image,
            n_images=arrays.n_images,
            n_classes=arrays.n_classes,
            n_indices=arrays.n_images,
        )

    @property
    def n_objects(self) -> Floats:
        """Number of objects of each class, (C,)."""
        return np.bincount(self.target_class, minlength=self.n_classes).astype(np.float64)

    def counts(self, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return right detections and detections (K, C) above each of K thresholds, the same for all classes."""
        limits = -np.asarray(thresholds, dtype=np.float32)
        tp, seen = np.zeros((2, len(limits), self.n_classes))
        for class_id, rows in enumerate(self.rows_by_class()):
            n = np.searchsorted(-self.score[rows], limits, side="left")
            seen[:, class_id] = n
            tp[:, class_id] = np.concatenate([[0], np.cumsum(self.right[rows])])[n]
        return tp, seen

    def counts_by_class(self, thresholds: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Return right detections and detections (C,) with a threshold for each class, (C,)."""
        above = self.score > np.asarray(thresholds, dtype=np.float32)[self.class_id]
        tp, seen = (
            np.bincount(self.class_id[rows], minlength=self.n_classes).astype(np.float64)
            for rows in (above & self.right, above)
        )
        return tp, seen

    def image_counts(self, thresholds: npt.ArrayLike) -> ImageCounts:
        """Return what is counted in each image with a threshold for each class, (C,)."""
        above = self.score > np.asarray(thresholds, dtype=np.float32)[self.class_id]
        right = above & self.right
        return ImageCounts(
            tp=self._table(self.image[right], self.class_id[right]),
            seen=self._table(self.image[above], self.class_id[above]),
            objects=self._table(self.target_image, self.target_class),
        )

    def of_class(self, rows: Ints, class_id: int) -> "Ranking":
        """Return detections and objects of one class, as that of a split with this class alone.

        Args:
            rows: Its rows, as `rows_by_class` yields them.
            class_id: The class.
        """
        mine = self.target_class == class_id
        part = replace(self._rows(rows), target_class=self.target_class[mine] * 0, n_classes=1)
        return replace(part, class_id=part.class_id * 0, target_image=self.target_image[mine])

    def of_images(self, chosen: Bools) -> "Ranking":
        """Return detections and objects of the images where a mask (I,) is true; images keep their indices."""
        mine = chosen[self.target_image]
        part = replace(self._rows(np.flatnonzero(chosen[self.image])), n_images=int(chosen.sum()))
        return replace(part, target_class=self.target_class[mine], target_image=self.target_image[mine])

    def rows_by_class(self) -> Iterator[Ints]:
        """Yield the rows of each class, by falling score."""
        order = np.argsort(self.class_id, kind="stable")
        bounds = np.searchsorted(self.class_id[order], np.arange(self.n_classes + 1))
        for start, stop in pairwise(bounds):
            yield order[start:stop]

    def _rows(self, rows: Ints) -> "Ranking":
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("score", "class_id", "right", "image")}
        return replace(self, **columns)

    def _table(self, image: Ints, class_id: Ints) -> sparse.csr_array:
        return sparse.csr_array(
            (np.ones(len(image)), (image, class_id)), shape=(self.n_indices, self.n_classes), dtype=np.float64
        )
