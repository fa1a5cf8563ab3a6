"""What is kept of a split while a model goes through it image by image, in the end its `Heads`."""

from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.detection.boxes import Bools
from mlflow_yolo.detection.match_arrays import Values
from mlflow_yolo.models.candidates import Candidates
from mlflow_yolo.models.heads import Boxes, Heads
from mlflow_yolo.models.mask_overlaps import ImageMasks, MaskOverlaps, could_match

MEMORY_BYTES = 1 << 30
"""Prototypes beyond this many bytes are kept in files: those of one image of 640 pixels take 3 MB."""

_NO_SCORES = np.zeros(0, np.float32)


class Keeper:
    """Gathers the images of one split.

    Attributes:
        images: Their names.
    """

    def __init__(
        self, folder: Path | None, *, single_cls: bool = False, native: bool = False, device: str = "cpu"
    ) -> None:
        """Begin with no image.

        Args:
            folder: Where prototypes go that do not fit into memory, see `MEMORY_BYTES`; None keeps all in memory.
            single_cls: Whether all classes count as one.
            native: Whether masks are made at the size of the input instead of a quarter.
            device: Where masks are made.
        """
        self.images: list[str] = []
        self._folder = folder
        self._single_cls, self._native, self._device = single_cls, native, device
        self._candidates: list[tuple[Values, Values, Values]] = []
        self._objects: list[tuple[Values, Values, Values]] = []
        self._masks: list[ImageMasks] = []
        self._n_candidates, self._n_objects, self._n_bytes = 0, 0, 0

    def add(
        self,
        image: str,
        found: Candidates,
        gt_boxes: Values,
        gt_classes: Values,
        masks: tuple[Values, Bools] | None = None,
    ) -> None:
        """Keep one image.

        Args:
            image: Its path within the data.
            found: Its candidates.
            gt_boxes: (M, 4) xyxy of its objects, pixels of the model's input.
            gt_classes: (M,) their classes.
            masks: Of a segmentation model the prototypes (P, h, w) and the objects' masks (M, H, W).
        """
        self.images.append(image)
        self._candidates.append((found.boxes, found.classes, found.scores))
        self._objects.append((gt_boxes.reshape(-1, 4), gt_classes, _NO_SCORES))
        if masks is not None and len(gt_classes):
            self._keep_masks(found, gt_classes, *masks)
        self._n_candidates += len(found.scores)
        self._n_objects += len(gt_classes)

    def heads(self, **rest: Any) -> Heads:
        """Return what was kept; `rest` is what only the caller knows, see `Heads`."""
        return Heads(
            images=tuple(self.images),
            candidates=Boxes.joined(self._candidates),
            objects=Boxes.joined(self._objects),
            single_cls=self._single_cls,
            masks=MaskOverlaps(self._masks) if rest["task"] == "segment" else None,
            **rest,
        )

    def _keep_masks(self, found: Candidates, gt_classes: Values, prototypes: Values, gt_masks: Bools) -> None:
        """Keep what an image's masks are made of, where one could be right."""
        classes = np.zeros_like(found.classes) if self._single_cls else found.classes
        scale = 1.0 if self._native else 0.25
        rows = np.flatnonzero(could_match(found.boxes, classes, gt_masks, gt_classes, scale=scale))
        if not len(rows):
            return
        image = ImageMasks(
            prototypes=self._stored(prototypes),
            candidates=rows + self._n_candidates,
            coefficients=found.extra[rows],
            boxes=found.boxes[rows],
            classes=classes[rows],
            gt_bits=np.packbits(gt_masks),
            gt_shape=gt_masks.shape,
            gt_classes=gt_classes,
            gt_start=self._n_objects,
            native=self._native,
            device=self._device,
        )
        self._masks.append(image)

    def _stored(self, prototypes: Values) -> Values | Path:
        """Return a copy of the prototypes, or the file they were written to because they would take too much memory."""
        self._n_bytes += prototypes.nbytes
        if self._folder is None or self._n_bytes <= MEMORY_BYTES:
            return prototypes.copy()
        file = self._folder / "prototypes" / f"{len(self._masks)}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, prototypes)
        return file
