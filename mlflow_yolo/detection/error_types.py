"""TIDE: how much average precision each type of error costs.

Every error of one type is corrected, all else staying as it is, and AP at the foreground IoU is computed again; the
difference is the cost of the type. Corrected means: a wrong class or place becomes right, if no better detection of
that object is corrected too, else the detection is dropped; a duplicate, a detection of background or one with both
errors is dropped; a missed object is no longer asked for. The differences do not add up, since one correction can make
another worth more.

Equal to tidecv 1.0.1, tied scores included, but for two things in which this is COCO: AP lies in [0, 1], and a class
without an object on these images does not count (there it counts as 0 as soon as one detection bears its name).

Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors (ECCV 2020), section 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.detection.average_precision import average_precision
from mlflow_yolo.detection.boxes import Bools, Floats, Ints
from mlflow_yolo.detection.evaluation import mean_of_present
from mlflow_yolo.detection.outcomes import Kind, Outcomes, find_outcomes
from mlflow_yolo.detection.samples import Sample

ERROR_TYPES: Mapping[str, str] = {
    "cls": "wrong class",
    "loc": "poorly placed",
    "both": "wrong class and place",
    "dupe": "duplicate",
    "bkg": "background",
    "miss": "missed",
}
"""The six types of error, and what to call them."""

SPECIAL_TYPES: Mapping[str, str] = {"false_positive": "any false positive", "false_negative": "any false negative"}
"""What perfect precision at this recall, and perfect recall at this precision, would gain."""


@dataclass(frozen=True, eq=False)
class ErrorTypes:
    """The errors of a split by type.

    Attributes:
        ap: Mean AP as detected; nan without any object.
        delta_ap: What the mean AP gains where all errors of a type are corrected, by the names of `ERROR_TYPES` (>= 0)
            and `SPECIAL_TYPES`; nan without any object, or where a correction leaves neither object nor detection.
        ap_per_class: (C,) AP as detected; nan for a class without objects.
        corrected_ap_per_class: (C,) for each type the AP with its errors corrected; nan for a class without objects,
            and for one of which neither an object nor a detection stays.
        counts: (C, 6) errors in the order of `ERROR_TYPES`; a detection counts for the class it names, a missed object
            for its own.
        n_right: (C,) detections that are right.
        n_objects: (C,) objects.
        conf: The detections below it were left out.
    """

    ap: float
    delta_ap: Mapping[str, float]
    ap_per_class: Floats
    corrected_ap_per_class: Mapping[str, Floats]
    counts: Ints
    n_right: Ints
    n_objects: Ints
    conf: float

    @property
    def totals(self) -> dict[str, int]:
        """The number of errors of each type."""
        return dict(zip(ERROR_TYPES, self.counts.sum(axis=0).tolist(), strict=True))


def error_types(
    samples: Sequence[Sample],
    *,
    n_classes: int,
    conf: float = 0.0,
    t_foreground: float = 0.5,
    t_background: float = 0.1,
    max_det: int | None = None,
) -> ErrorTypes:
    """Return how often each type of error occurs and what it costs.

    Args:
        samples: The images.
        n_classes: Number of classes.
        conf: Detections below this score are left out; AP wants all there are, hence 0.
        t_foreground: IoU from which a detection has found an object, and of the AP.
        t_background: IoU up to which a detection overlaps nothing.
        max_det: Detections per image that count, all classes together (tidecv's default is 100); None for all, so that
            AP is that of `evaluation`.

    Raises:
        ArgumentError: A class id is not in 0 to n_classes - 1, or not 0 < t_background < t_foreground <= 1.
    """
    outcomes = find_outcomes(
        samples, n_classes=n_classes, conf=conf, t_foreground=t_foreground, t_background=t_background, max_det=max_det
    )
    n_objects = np.bincount(outcomes.gt_class, minlength=n_classes)
    rankings = {
        "detected": _Ranking(outcomes.class_id, outcomes.conf, outcomes.right, n_objects),
        **_corrections(outcomes, n_objects),
    }
    corrected = {name: np.where(n_objects > 0, r.average_precision(), np.nan) for name, r in rankings.items()}
    detected = corrected.pop("detected")
    ap = mean_of_present(detected)
    gains = {name: mean_of_present(values) - ap for name, values in corrected.items()}
    return ErrorTypes(
        ap=ap,
        # Binning of the recall can make a correction lose a little: that is no gain below 0.
        delta_ap={name: float(np.maximum(gain, 0.0)) if name in ERROR_TYPES else gain for name, gain in gains.items()},
        ap_per_class=detected,
        corrected_ap_per_class=corrected,
        counts=_counts(outcomes, n_classes),
        n_right=np.bincount(outcomes.class_id[outcomes.right], minlength=n_classes),
        n_objects=n_objects,
        conf=conf,
    )


_KINDS = {"cls": Kind.CLS, "loc": Kind.LOC, "both": Kind.BOTH, "dupe": Kind.DUPE, "bkg": Kind.BKG}


def _counts(outcomes: Outcomes, n_classes: int) -> Ints:
    named = [outcomes.class_id[outcomes.kind == kind] for kind in _KINDS.values()]
    columns = [*named, outcomes.gt_class[outcomes.missed]]
    return np.stack([np.bincount(column, minlength=n_classes) for column in columns], axis=1)


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Detections to compute AP from: their class, score and whether they are right, and the objects (C,) asked for."""

    class_id: Ints
    score: Floats
    right: Bools
    n_objects: Ints

    def average_precision(self) -> Floats:
        """Return (C,); of a class without objects 0 if it has detections, else nan. Ties stay in their order."""
        order = np.lexsort((-self.score, self.class_id))
        bounds = np.searchsorted(self.class_id[order], np.arange(len(self.n_objects) + 1))
        right = np.split(self.right[order], bounds[1:-1])
        return np.array(
            [_average_precision(r, n) for r, n in zip(right, self.n_objects, strict=True)], dtype=np.float64
        )


def _average_precision(right: Bools, n_objects: npt.NDArray[Any]) -> float:
    """Return the AP of one class from its detections (N,) in the order of their scores."""
    if not n_objects:
        return 0.0 if len(right) else float("nan")
    where = np.flatnonzero(right)
    tp, seen = np.arange(1.0, len(where) + 1), (where + 1).astype(np.float64)
    return float(average_precision(tp[:, None], seen[:, None], np.array([float(n_objects)]))[0])


def _corrections(outcomes: Outcomes, n_objects: Ints) -> dict[str, _Ranking]:
    """Return the ranking of each corrected type, in the order of `ERROR_TYPES` and `SPECIAL_TYPES`."""
    # Of tied scores tidecv ranks what was wrong before what was right, once something is corrected.
    order = np.argsort(outcomes.right, kind="stable")
    class_id, score, kind = outcomes.class_id[order], outcomes.conf[order], outcomes.kind[order]
    right = kind == Kind.RIGHT
    rescues = np.zeros(len(order), dtype=np.bool_)
    rescues[outcomes.rescuer[outcomes.rescuer >= 0]] = True
    rescues = rescues[order]
    true_class = class_id.copy()
    misnamed = rescues & (kind == Kind.CLS)
    true_class[misnamed] = outcomes.gt_class[outcomes.object[order][misnamed]]

    def corrected(which: Kind) -> _Ranking:
        kept = (kind != which) | rescues
        now_right = right | ((kind == which) & rescues)
        classes = true_class if which == Kind.CLS else class_id
        return _Ranking(classes[kept], score[kept], now_right[kept], n_objects)

    n_missed, n_found = (
        np.bincount(outcomes.gt_class[which], minlength=len(n_objects)) for which in (outcomes.missed, outcomes.found)
    )
    return {
        **{name: corrected(which) for name, which in _KINDS.items()},
        "miss": _Ranking(class_id, score, right, n_objects - n_missed),
        "false_positive": _Ranking(class_id, right.astype(np.float64), right, n_objects),
        "false_negative": _Ranking(class_id, score, right, n_found),
    }
