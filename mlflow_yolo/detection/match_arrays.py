"""Ultralytics' statistics of a split: every detection's score, class and verdicts, and every object's class."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.boxes import Bools, Ints
from mlflow_yolo.exceptions import ShapeError

N_THRESHOLDS = 10
"""IoU thresholds that a detection is judged at, .50 to .95."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MatchArrays:
    """What Ultralytics' metrics are computed from, at one overlap of suppression and one `max_det`.

    The rows go image by image, and by falling score within an image. So the rows above a confidence are what a
    validation at this confidence would have collected: suppression, the limit of detections, and Ultralytics' matching
    look at higher scores only.

    Attributes:
        tp: (N, 10) whether a detection is right, by IoU threshold .50 to .95.
        conf: (N,) scores.
        pred_cls: (N,) class ids, floats as Ultralytics keeps them.
        image: (N,) index of the detection's image.
        target_cls: (M,) class ids of the objects, floats.
        target_image: (M,) index of the object's image.
        n_images: Number of images, those without objects or detections included.
        n_classes: Number of classes.
        tp_mask: (N, 10) `tp` by the overlap of masks, of a segmentation model; else None.

    Raises:
        ShapeError: Arrays of one kind of row differ in length.
    """

    tp: Bools
    conf: Values
    pred_cls: Values
    image: Ints
    target_cls: Values
    target_image: Ints
    n_images: int
    n_classes: int
    tp_mask: Bools | None = None

    def __post_init__(self) -> None:
        n, m = len(self.conf), len(self.target_cls)
        expected = {"tp": (n, N_THRESHOLDS), "pred_cls": (n,), "image": (n,), "target_image": (m,)}
        expected |= {"tp_mask": (n, N_THRESHOLDS)} if self.tp_mask is not None else {}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ShapeError(f"{name} has shape {getattr(self, name).shape}, expected {shape}: one row each.")

    def above(self, conf: float) -> "MatchArrays":
        """Return the detections with a score above `conf`: exactly what a validation at this confidence collects.

        Both are compared in single precision, as Ultralytics does.
        """
        return self.rows(self.conf > np.float32(conf))

    def rows(self, chosen: Ints | Bools) -> "MatchArrays":
        """Return the detections of the given indices, or where a mask is true; the objects stay."""
        return replace(
            self,
            tp=self.tp[chosen],
            conf=self.conf[chosen],
            pred_cls=self.pred_cls[chosen],
            image=self.image[chosen],
            tp_mask=None if self.tp_mask is None else self.tp_mask[chosen],
        )

    def of_images(self, images: Ints) -> "MatchArrays":
        """Return detections and objects of the given images, numbered in this order from 0.

        Args:
            images: (K,) indices of images; one that is there twice counts twice, as in a bootstrap sample.
        """
        rows, image = _rows_of(self.image, images, self.n_images)
        targets, target_image = _rows_of(self.target_image, images, self.n_images)
        return replace(
            self.rows(rows),
            image=image,
            target_cls=self.target_cls[targets],
            target_image=target_image,
            n_images=len(images),
        )


def _rows_of(image: Ints, images: Ints, n_images: int) -> tuple[Ints, Ints]:
    """Return the rows that belong to `images`, in their order, and the new index of each one's image.

    Args:
        image: (N,) the image of each row, not falling.
        images: (K,) the images wanted.
        n_images: Number of images.
    """
    starts = np.searchsorted(image, np.arange(n_images + 1))
    counts = np.diff(starts)[images]
    new = np.repeat(np.arange(len(images)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(starts[images][new] + within, np.int64), np.asarray(new, np.int64)
