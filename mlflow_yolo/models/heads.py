"""A detector's raw output on a split, from which any validation of it is replayed without running the model again.

Suppression, the limit of detections and the matching all go by falling score. So one suppression at the lowest
confidence gives the detections of every higher one: they are its rows above that confidence (`MatchArrays.above`).

Source: `ultralytics.utils.nms` and `ultralytics.engine.validator` (8.4); the identity is ours, and tested.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torchvision.ops import nms

from mlflow_yolo.detection.boxes import Ints
from mlflow_yolo.detection.match_arrays import MatchArrays, Values
from mlflow_yolo.detection.ultralytics_matching import Overlaps, box_overlaps, match_greedily
from mlflow_yolo.exceptions import ArgumentError, ShapeError
from mlflow_yolo.models.mask_overlaps import MaskOverlaps

MAX_DET = 300
"""Detections an image that Ultralytics keeps by default; it raises this default, and no other value, see `limit`."""

CLASS_DISTANCE = 7680
"""Pixels by which Ultralytics moves the boxes of neighbouring classes apart (`max_wh`)."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of all images of a split, image by image.

    Attributes:
        boxes: (K, 4) xyxy, pixels of the model's input.
        classes: (K,) class ids, as floats.
        starts: (I + 1,) where each image's rows begin; the last one is K.
        scores: (K,) of candidates, falling within an image; empty for objects.
    """

    boxes: Values
    classes: Values
    starts: Ints
    scores: Values = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def joined(cls, images: Iterable[tuple[Values, Values, Values]]) -> "Boxes":
        """Return those of all images, each given as boxes (K, 4), classes (K,) and scores (K,) or (0,)."""
        none = np.zeros(0, np.float32)
        parts: list[tuple[Values, Values, Values]] = [(none.reshape(0, 4), none, none), *images]
        boxes, classes, scores = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
        starts = np.cumsum(np.array([len(part[1]) for part in parts], dtype=np.int64))
        return cls(boxes, classes, starts, scores)

    @property
    def image(self) -> Ints:
        """(K,) index of each row's image."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True, eq=False)
class Heads:
    """What a detector said of every image of a split, before any threshold of a user.

    Attributes:
        names: Class names by id.
        task: `detect` or `segment`.
        split: The split.
        images: Each image's path within the data, in the order of validation.
        conf: Score that every candidate is above: the lowest confidence that can be asked for.
        end2end: Whether the head suppresses by itself (YOLO26 with nms=False): then `iou` has no effect.
        candidates: Every box and class above `conf`.
        objects: The ground truth.
        agnostic: Whether boxes suppress each other whatever their class.
        single_cls: Whether all classes count as one.
        most_kept: Largest `max_det` that can be asked for; None for any.
        masks: Overlap of masks, of a segmentation model.
    """

    names: tuple[str, ...]
    task: str
    split: str
    images: tuple[str, ...]
    conf: float
    end2end: bool
    candidates: Boxes
    objects: Boxes
    agnostic: bool = False
    single_cls: bool = False
    most_kept: int | None = None
    masks: MaskOverlaps | None = None

    def __post_init__(self) -> None:
        n_images = len(self.images)
        for name, rows in (("candidates", self.candidates), ("objects", self.objects)):
            if len(rows.starts) != n_images + 1:
                raise ShapeError(f"{name} are of {len(rows.starts) - 1} images, expected {n_images}: one row each.")

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    def limit(self, max_det: int = MAX_DET) -> int:
        """Return the number of detections an image that count: as Ultralytics does, its default is raised to the
        number of objects of the fullest image."""
        return max(max_det, int(np.diff(self.objects.starts).max(initial=0))) if max_det == MAX_DET else max_det

    def replay(self, *, iou: float, max_det: int = MAX_DET, conf: float | None = None) -> MatchArrays:
        """Return the statistics that a validation with these values would have collected.

        Args:
            iou: Largest overlap of two detections of one class, in [0, 1].
            max_det: Largest number of detections an image; see `limit`.
            conf: Score that a detection is above, not below `self.conf`; None for that.

        Raises:
            ArgumentError: A value is out of its range.
        """
        return self.replay_all([iou], max_det=max_det, conf=conf)[iou]

    def replay_all(
        self, ious: Iterable[float], *, max_det: int = MAX_DET, conf: float | None = None
    ) -> dict[float, MatchArrays]:
        """Return `replay` for every overlap; masks are made once, for what is kept at any of them."""
        lowest = self.conf if conf is None else conf
        n_kept = self.limit(max_det)
        wanted = dict.fromkeys(ious)
        self._check(wanted, max_det, n_kept, lowest)
        if self.end2end:
            rows = self._best(lowest, n_kept)
            kept = dict.fromkeys(wanted, rows)
        else:
            kept = {iou: self._suppress(iou, lowest, n_kept) for iou in wanted}
        if self.masks is not None:
            self.masks.compute(np.unique(np.concatenate([np.zeros(0, np.int64), *kept.values()])))
        return {iou: self._judge(rows) for iou, rows in kept.items()}

    @cached_property
    def _overlaps(self) -> Overlaps:
        """The pairs of all candidates and objects of one class that overlap."""
        found, there = self.candidates, self.objects
        parts = []
        for index in range(self.n_images):
            here = slice(*found.starts[index : index + 2].tolist())
            real = slice(*there.starts[index : index + 2].tolist())
            pairs = box_overlaps(found.boxes[here], self._classes[here], there.boxes[real], there.classes[real])
            parts.append(Overlaps(pairs.detection + here.start, pairs.object + real.start, pairs.iou))
        return Overlaps.joined(parts)

    @cached_property
    def _classes(self) -> Values:
        """(K,) the classes of the candidates as they are judged."""
        return np.zeros_like(self.candidates.classes) if self.single_cls else self.candidates.classes

    @cached_property
    def _moved(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The candidates' boxes moved apart by class, and their scores."""
        distance = np.float32(0 if self.agnostic else CLASS_DISTANCE)
        moved = self.candidates.boxes + (self.candidates.classes * distance)[:, None]
        return torch.from_numpy(moved), torch.from_numpy(self.candidates.scores)

    def _ends(self, conf: float) -> Ints:
        """Return, for each image, where its candidates with a score above `conf` end."""
        above = np.concatenate([[0], np.cumsum(self.candidates.scores > np.float32(conf))])
        starts = self.candidates.starts
        return np.asarray(starts[:-1] + above[starts[1:]] - above[starts[:-1]])

    def _best(self, conf: float, n_kept: int) -> Ints:
        """Return the rows (R,) of each image's surest candidates."""
        starts = self.candidates.starts[:-1]
        ends = np.minimum(self._ends(conf), starts + n_kept)
        ranges = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *ranges])

    def _suppress(self, iou: float, conf: float, n_kept: int) -> Ints:
        """Return the rows (R,) that remain of each image, rising.

        Image by image: Ultralytics gives a batch two seconds, after which the images that are left have nothing.
        """
        boxes, scores = self._moved
        starts = self.candidates.starts[:-1]
        ends = self._ends(conf)
        kept = [np.zeros(0, np.int64)]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if end > start:
                kept.append(_surest(boxes[start:end], scores[start:end], iou, n_kept) + start)
        return np.concatenate(kept)

    def _judge(self, rows: Ints) -> MatchArrays:
        """Return the statistics of the given candidates (R,), rising."""
        n, there = len(self.candidates.classes), self.objects
        image = there.image
        _, class_id = np.unique(there.classes, return_inverse=True)
        group = image * (class_id.max(initial=0) + 1) + class_id
        tp = match_greedily(self._overlaps.of(rows, n), group, len(rows))
        masks = self.masks
        return MatchArrays(
            tp=tp,
            conf=self.candidates.scores[rows],
            pred_cls=self._classes[rows],
            image=self.candidates.image[rows],
            target_cls=there.classes,
            target_image=image,
            n_images=self.n_images,
            n_classes=self.n_classes,
            tp_mask=None if masks is None else match_greedily(masks.overlaps.of(rows, n), group, len(rows)),
        )

    def _check(self, ious: Iterable[float], max_det: int, n_kept: int, conf: float) -> None:
        for iou in ious:
            if not 0 <= iou <= 1:
                raise ArgumentError(f"iou={iou} is not in [0, 1]. Use a value between them.")
        if not self.conf <= conf <= 1:
            raise ArgumentError(f"conf={conf} is not in [{self.conf}, 1], which was kept. Use a value between them.")
        if max_det < 1:
            raise ArgumentError(f"max_det={max_det} keeps nothing. Use 1 or more.")
        if self.most_kept is not None and n_kept > self.most_kept:
            raise ArgumentError(f"max_det={n_kept} is more than the {self.most_kept} that were kept. Use less.")


def _surest(boxes: torch.Tensor, scores: torch.Tensor, iou: float, n_kept: int) -> Ints:
    """Return which of one image's candidates, by falling score, remain: the first `n_kept`.

    What remains of the surest is the beginning of what remains of all, and the time goes by the square of their number:
    10,000 candidates of 80 classes take 100 ms at once, and 2 ms where four for each that is wanted suffice.
    """
    size = 4 * n_kept
    while True:
        kept = nms(boxes[:size], scores[:size], iou)
        if len(kept) >= n_kept or size >= len(scores):
            return np.asarray(kept[:n_kept].numpy(), dtype=np.int64)
        size *= 4
