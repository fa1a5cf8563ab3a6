"""The operating point of a trial: chosen from one forward pass over a split, by the words that `thresholds` takes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.objective import parse_objective
from mlflow_yolo.detection.operating_choice import DEFAULT_IOU, choose
from mlflow_yolo.detection.operating_measures import measures
from mlflow_yolo.detection.ranking import Ranking
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.replay import collect_heads
from mlflow_yolo.studies.thresholds.question import IOU_STEP, LOWEST_CONF


def best_operating_point(
    weights: str,
    dataset: Dataset,
    *,
    split: str = "val",
    conf: tuple[float, float] = (0.05, 0.95),
    iou: tuple[float, float] = (0.3, 0.8),
    objective: str = "f1",
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Return the best confidence and IoU of a checkpoint, and what they score on the same split.

    Args:
        weights: A located checkpoint of detection or segmentation; of the second the masks are judged.
        dataset: The data.
        split: One of its splits.
        conf: Least and greatest confidence; the choice between them is exact.
        iou: Least and greatest overlap of suppression; from the least on every 0.05 is tried, and the greatest.
        objective: See `detection.objective.parse_objective`.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        directory: Where Ultralytics may write.
        arguments: Further Ultralytics arguments; those that decide how it validates count, except conf and iou.

    Returns:
        `conf`, `iou`, `f1`, `precision` and `recall`: means over the classes with objects, at IoU .50 with the object.
        Since the point was chosen on the same images, the scores are a little better than on others.

    Raises:
        ArgumentError: An unknown objective, empty or impossible bounds, or a task without boxes.
    """
    wanted = parse_objective(objective)
    span = _checked("conf", conf, lowest=LOWEST_CONF)
    ious = overlaps(*_checked("iou", iou, lowest=0.0))
    given = {name: value for name, value in (arguments or {}).items() if name not in ("conf", "iou")}
    heads = collect_heads(
        weights,
        dataset,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        directory=directory,
        conf=span[0],
        arguments=given,
    )
    ious = [nearest(ious)] if heads.end2end else ious
    arrays = heads.replay_all(ious, max_det=int(given.get("max_det") or 300))
    masks = dataset.task == "segment"
    choice = choose({at: Ranking.of(one, masks=masks) for at, one in arrays.items()}, wanted, conf=span)
    ranking = Ranking.of(arrays[choice.iou], masks=masks)
    tp, seen = ranking.counts(np.array([choice.conf]))
    found = measures(tp[0], seen[0], ranking.n_objects, ranking.n_images, wanted.weighing)
    return {
        "conf": choice.conf,
        "iou": choice.iou,
        **{name: float(np.nan_to_num(found[name])) for name in ("f1", "precision", "recall")},
    }


def overlaps(low: float, high: float) -> list[float]:
    """Return `low`, every 0.05 above it, and `high`."""
    steps = int((high - low) / IOU_STEP + 1e-9)
    return sorted({*(round(low + index * IOU_STEP, 10) for index in range(steps + 1)), high})


def nearest(ious: Iterable[float]) -> float:
    """Return the overlap nearest to Ultralytics' default: where it has no effect, one of them is as good as another."""
    return min(ious, key=lambda one: abs(one - DEFAULT_IOU))


def _checked(name: str, bounds: tuple[float, float], *, lowest: float) -> tuple[float, float]:
    low, high = (float(bound) for bound in bounds)
    if not 0 <= low <= high <= 1:
        raise ArgumentError(f"{name}={low:g}:{high:g} is no range within 0 to 1. Write the lower bound first.")
    return max(low, lowest), max(high, lowest)
