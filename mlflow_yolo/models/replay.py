"""One forward pass over a split that keeps the raw output of the head, for every (conf, IoU, max_det) to be replayed.

heads = collect_heads("best.pt", dataset, split="val", imgsz=640, batch=16, device="cpu", directory=folder)
arrays = heads.replay(iou=0.6)              # the statistics of a validation at conf=.001, iou=.6
arrays.above(0.25)                          # and at conf=.25
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import ops

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.boxes import Bools
from mlflow_yolo.detection.match_arrays import Values
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.candidates import Candidates, read_candidates, read_final
from mlflow_yolo.models.heads import Heads
from mlflow_yolo.models.keeper import Keeper
from mlflow_yolo.models.validation import validate

CONF = 0.001
"""Score that Ultralytics' validation keeps detections above."""

MOST_KEPT = 1000
"""Detections an image that a head which suppresses by itself is asked for: the largest `max_det` of a replay."""


def collect_heads(
    weights: str,
    dataset: Dataset,
    *,
    split: str,
    imgsz: int,
    batch: int,
    device: str,
    directory: Path,
    conf: float = CONF,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Heads:
    """Return what a checkpoint says of every image of a split; it is run once.

    Args:
        weights: A located checkpoint of detection or segmentation.
        dataset: The data; `split` must be one of its splits.
        split: `train`, `val` or `test`.
        imgsz: Input size, pixels.
        batch: Images a batch.
        device: A checked device.
        directory: Where Ultralytics may write, and prototypes of masks that do not fit into memory are kept: it must
            stay as long as the result is used.
        conf: Lowest score that is kept; memory and time go by it.
        arguments: Further Ultralytics arguments; those that decide how it validates count, `iou` and `conf` excepted.
        progress: Told after every batch how many batches were done, and of how many.

    Raises:
        ArgumentError: The task is neither detect nor segment, or `conf` is not in [0, 1].
    """
    if dataset.task not in COLLECTORS:
        raise ArgumentError(f"task={dataset.task} has no boxes to suppress. Use a model for {' or '.join(COLLECTORS)}.")
    if not 0 <= conf <= 1:
        raise ArgumentError(f"conf={conf} is not in [0, 1]. Use a value between them.")
    done = validate(
        weights,
        dataset,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        directory=directory,
        arguments={**(arguments or {}), "conf": conf},
        validator=COLLECTORS[dataset.task],
        progress=progress,
    )
    heads: Heads = done.heads()
    return heads


class Collecting:
    """Makes a detection validator keep candidates and ground truth, and neither suppress nor score them."""

    def init_metrics(self, model: Any) -> None:
        super().init_metrics(model)  # type: ignore[misc]
        args: Any = self.args  # type: ignore[attr-defined]
        self._most_kept = max(MOST_KEPT, int(args.max_det))
        network = model.model if getattr(model, "format", None) == "pt" else model
        if self.end2end and hasattr(network, "set_head_attr"):  # type: ignore[attr-defined]
            network.set_head_attr(max_det=self._most_kept)
        self._keeper = Keeper(
            Path(self.save_dir),  # type: ignore[attr-defined]
            single_cls=bool(args.single_cls),
            native=getattr(self, "process", None) is ops.process_mask_native,
            device=str(self.device),  # type: ignore[attr-defined]
        )

    def postprocess(self, preds: Any) -> list[Candidates]:
        """Return the candidates of each image of a batch."""
        raw = preds[0] if isinstance(preds, list | tuple) else preds
        args: Any = self.args  # type: ignore[attr-defined]
        if self.end2end:  # type: ignore[attr-defined]
            return [read_final(one, conf=args.conf) for one in raw]
        n_classes = raw.shape[1] - 4 if args.task == "detect" else self.nc  # type: ignore[attr-defined]
        return [read_candidates(one, conf=args.conf, n_classes=n_classes) for one in raw]

    def update_metrics(self, preds: list[Candidates], batch: dict[str, Any]) -> None:
        """Keep the images of a batch with their objects."""
        for index, found in enumerate(preds):
            truth = self._prepare_batch(index, batch)  # type: ignore[attr-defined]
            self._keeper.add(
                os.path.relpath(truth["im_file"], self.data["path"]),  # type: ignore[attr-defined]
                found,
                _numpy(truth["bboxes"]),
                _numpy(truth["cls"]),
                self._masks(index, truth),
            )

    def get_stats(self) -> dict[str, Any]:
        """Return nothing: what was kept is not scored."""
        return {}

    def print_results(self) -> None:
        """Say nothing: there are no results yet."""

    def heads(self) -> Heads:
        """Return what was kept."""
        args: Any = self.args  # type: ignore[attr-defined]
        names: Mapping[int, str] = self.names  # type: ignore[attr-defined]
        end2end = bool(self.end2end)  # type: ignore[attr-defined]
        return self._keeper.heads(
            names=tuple(str(names[index]) for index in sorted(names)),
            task=str(args.task),
            split=str(args.split),
            conf=float(args.conf),
            end2end=end2end,
            agnostic=bool(args.single_cls or args.agnostic_nms),
            most_kept=self._most_kept if end2end else None,
        )

    def _masks(self, index: int, truth: Mapping[str, Any]) -> tuple[Values, Bools] | None:
        """Return the prototypes and the objects' masks of one image of the batch."""
        return None


class CollectingDetectionValidator(Collecting, DetectionValidator):  # type: ignore[misc]
    """`DetectionValidator` with `heads`."""


class CollectingSegmentationValidator(Collecting, SegmentationValidator):  # type: ignore[misc]
    """`SegmentationValidator` with `heads`, masks included."""

    def postprocess(self, preds: Any) -> list[Candidates]:
        """Return the candidates of each image of a batch, and remember its prototypes."""
        self._prototypes = preds[0][1] if isinstance(preds[0], tuple) else preds[1]
        return super().postprocess(preds[0])

    def _masks(self, index: int, truth: Mapping[str, Any]) -> tuple[Values, Bools]:
        return _numpy(self._prototypes[index]), truth["masks"].cpu().numpy().astype(np.bool_)


COLLECTORS = {"detect": CollectingDetectionValidator, "segment": CollectingSegmentationValidator}
"""The validator of each task that has boxes to suppress."""


def _numpy(values: torch.Tensor) -> Values:
    return np.asarray(values.float().cpu().numpy())
