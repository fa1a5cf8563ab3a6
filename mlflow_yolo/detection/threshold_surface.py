"""Every measure over confidence and IoU of suppression, from what was detected once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_yolo.detection.boxes import Floats
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.operating_measures import Weighing, measures
from mlflow_yolo.detection.ranking import Ranking
from mlflow_yolo.detection.ultralytics_ap import average_precision_surface

MEASURES = ("precision", "recall", "f1", "f_beta", "mAP50", "mAP50-95", "cost", "detections", "tp", "fp", "fn")
"""What is known at every point, as in `operating_measures.measures`; the two mAP are Ultralytics' own."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Measures over a grid.

    Attributes:
        ious: (J,) overlaps of suppression, rising.
        confs: (K,) confidences, rising.
        values: By name of `MEASURES`, (J, K).
    """

    ious: Floats
    confs: Floats
    values: Mapping[str, Floats]

    def rows(self) -> list[dict[str, float]]:
        """Return one row for every point: iou, conf and every measure."""
        return [
            {"iou": float(iou), "conf": float(conf), **{name: float(self.values[name][j, k]) for name in self.values}}
            for j, iou in enumerate(self.ious)
            for k, conf in enumerate(self.confs)
        ]


def threshold_surface(
    arrays: Mapping[float, MatchArrays],
    confs: Sequence[float],
    *,
    weighing: Weighing,
    level: int = 0,
    masks: bool = False,
) -> Surface:
    """Return the measures at every combination of IoU and confidence.

    Args:
        arrays: What was detected, by overlap of suppression.
        confs: The confidences.
        weighing: What errors weigh.
        level: Index of the IoU threshold from which a detection is right, 0 for .50; not for the two mAP.
        masks: Judge by the overlap of masks instead of boxes.
    """
    ious, thresholds = sorted(arrays), np.unique(np.asarray(confs, dtype=np.float64))
    rows: dict[str, list[Floats]] = {name: [] for name in MEASURES}
    for iou in ious:
        ranking = Ranking.of(arrays[iou], level=level, masks=masks)
        found = dict(measures(*ranking.counts(thresholds), ranking.n_objects, ranking.n_images, weighing))
        found["mAP50"], found["mAP50-95"] = average_precision_surface(arrays[iou], list(thresholds), masks=masks).T
        for name in MEASURES:
            rows[name].append(found[name])
    return Surface(np.array(ious), thresholds, {name: np.stack(values) for name, values in rows.items()})
