"""What was found in one image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_yolo.detection.boxes import Bools, Floats, Ints

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: (N, 4) xyxy, pixels of the original image, by falling score; (0, 4) for nothing found and for a
            classifier.
        scores: (N,) confidences.
        classes: (N,) class ids.
        names: Every class name of the model, by id.
        masks: (N, H, W) of a segmentation model, else None. Ultralytics' default, in the frame of the letterboxed
            input; with `retina_masks=True` in the frame of the original image.
        probabilities: (C,) of a classifier, by class id, else None.
    """

    boxes: Floats
    scores: Floats
    classes: Ints
    names: tuple[str, ...]
    masks: Bools | None = None
    probabilities: Floats | None = None

    def __len__(self) -> int:
        """Return the number of objects found."""
        return len(self.boxes)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per detection, or for a classifier one per class, the surest first.

        Columns: `class_id`, `name`, `score`, and `x1`, `y1`, `x2`, `y2` in pixels of the original image where there
        are boxes.
        """
        import pandas as pd

        if self.probabilities is not None:
            order = (-self.probabilities).argsort(kind="stable")
            names = [self.names[index] for index in order]
            return pd.DataFrame({"class_id": order, "name": names, "score": self.probabilities[order]})
        names = [self.names[index] for index in self.classes]
        frame = pd.DataFrame({"class_id": self.classes, "name": names, "score": self.scores})
        for index, side in enumerate(("x1", "y1", "x2", "y2")):
            frame[side] = self.boxes[:, index]
        return frame
