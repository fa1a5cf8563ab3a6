"""Which detections count: scores by class, overlap, number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.postprocess import Values

CONF, IOU, MAX_DET = 0.25, 0.7, 300
"""What Ultralytics' predict uses unless told otherwise."""


@dataclass(frozen=True)
class Selection:
    """Which detections count.

    Attributes:
        conf: Score that a detection is above, in [0, 1].
        iou: Largest overlap of two detections of one class, in [0, 1]; a head that suppresses by itself has its own.
        max_det: Largest number of detections an image.
        per_class: Scores for single classes, by name or id, instead of `conf`.
        multi_label: Let one anchor be found once for each of its classes, as Ultralytics' validation does.
        agnostic: Let detections suppress each other whatever their class.

    Raises:
        ArgumentError: A value is out of its range.
    """

    conf: float = CONF
    iou: float = IOU
    max_det: int = MAX_DET
    per_class: Mapping[str | int, float] | None = None
    multi_label: bool = False
    agnostic: bool = False

    def __post_init__(self) -> None:
        shares = {"conf": self.conf, "iou": self.iou}
        shares |= {f"conf of class {name}": value for name, value in (self.per_class or {}).items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ArgumentError(f"{name}={value} is not in [0, 1]. Use a value between them.")
        if self.max_det < 1:
            raise ArgumentError(f"max_det={self.max_det} keeps nothing. Use 1 or more.")

    def thresholds(self, names: Sequence[str]) -> Values:
        """Return the score that a detection of each class is above, (C,).

        Raises:
            ArgumentError: `per_class` names a class that is not there.
        """
        values = np.full(len(names), self.conf, dtype=np.float32)
        for word, value in (self.per_class or {}).items():
            index = word if isinstance(word, int) else _index_of(word, names)
            if not 0 <= index < len(names):
                raise ArgumentError(f"per_class names class {word}. The model has {_listed(names)}.")
            values[index] = value
        return values


def _index_of(word: str, names: Sequence[str]) -> int:
    return names.index(word) if word in names else -1


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
