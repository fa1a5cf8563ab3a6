"""The few values by which a finished model is judged, read from Ultralytics' metrics objects.

The objects are read by attribute, not by type: `DetMetrics` and `OBBMetrics` have `box`; `SegmentMetrics` and
`PoseMetrics` have a second set (`seg`, `pose`); `ClassifyMetrics` has `top1` and `top5`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlflow_yolo import keys

_SECOND_SETS = {"seg": "mask", "pose": "pose"}


@dataclass(frozen=True)
class FinalValues:
    """What a model scores on one split.

    Attributes:
        values: `mAP50`, `mAP50-95`, `precision`, `recall` and `F1` (precision, recall and F1 at the confidence where
            mean F1 peaks), the same under `mask/` or `pose/`; `top1` and `top5` for classification. All in [0, 1].
        per_class: Class name to `AP50`, `AP50-95`, `precision`, `recall`, `F1`; classes without objects are absent.
    """

    values: Mapping[str, float]
    per_class: Mapping[str, Mapping[str, float]]

    @property
    def headline(self) -> tuple[str, float]:
        """The one metric that decides and its value: `mAP50-95`, or `top1` for classification."""
        name = "top1" if "top1" in self.values else "mAP50-95"
        return name, self.values[name]


def read_final_values(metrics: Any) -> FinalValues:
    """Return the values of one Ultralytics metrics object after validation."""
    if hasattr(metrics, "top1"):
        return FinalValues({"top1": float(metrics.top1), "top5": float(metrics.top5)}, {})
    values = _values(metrics.box)
    for attribute, prefix in _SECOND_SETS.items():
        if (second := getattr(metrics, attribute, None)) is not None:
            values |= {f"{prefix}/{name}": value for name, value in _values(second).items()}
    return FinalValues(values, _per_class(metrics.box, metrics.names))


def per_class_metrics(
    prefix: str, per_class: Mapping[str, Mapping[str, float]], *, most: int = keys.MAX_CLASSES_AS_METRICS
) -> dict[str, float]:
    """Return AP50-95 by key `prefix/AP50-95/<class>`; nothing for more than `most` classes (see `per_class.csv`)."""
    if len(per_class) > most:
        return {}
    rows = zip(keys.class_segments(per_class), per_class.values(), strict=True)
    return {f"{prefix}/AP50-95/{name}": row["AP50-95"] for name, row in rows}


def _values(box: Any) -> dict[str, float]:
    """Return the means over classes of one set of curves; zeros where nothing was detected."""
    f1 = np.asarray(box.f1, dtype=float)
    return {
        "mAP50": float(box.map50),
        "mAP50-95": float(box.map),
        "precision": float(box.mp),
        "recall": float(box.mr),
        "F1": float(f1.mean()) if f1.size else 0.0,
    }


def _per_class(box: Any, names: Mapping[int, str]) -> dict[str, dict[str, float]]:
    """Return the values of every class that has objects in the split."""
    table = {}
    for row, index in enumerate(np.asarray(box.ap_class_index, dtype=int)):
        precision, recall, ap50, ap = (float(value) for value in box.class_result(row))
        table[names[int(index)]] = {
            "AP50": ap50,
            "AP50-95": ap,
            "precision": precision,
            "recall": recall,
            "F1": float(box.f1[row]),
        }
    return table
