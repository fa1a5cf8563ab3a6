"""What a finished training says of itself: its values on a split, and its predictions there."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.detection.bootstrap import Difference, bootstrap_map, bootstrap_mean
from mlflow_yolo.detection.samples import Sample, load_samples


class Measured:
    """A finished training, read from its folder; the base of what a study calls its children.

    Attributes:
        directory: Where it lies.
        result: Its `result.json`.
    """

    directory: Path
    result: Mapping[str, Any]

    @property
    def split(self) -> str:
        """The split that configurations are compared on: `test`, or `val` where there is no test split."""
        return "test" if "test" in self.result["measured"] else "val"

    @property
    def headline(self) -> str:
        """Name of the value that decides: `mAP50-95`, or `top1`."""
        return "top1" if self.result["task"] == "classify" else "mAP50-95"

    def n_images(self, split: str) -> int:
        """Return the number of images of a split."""
        return int(self.result["measured"][split]["n_images"])

    def value(self, split: str, name: str) -> float:
        """Return one value of a split, NaN where it was not measured."""
        return float(self.result["measured"][split]["values"].get(name, math.nan))

    def samples(self, split: str) -> list[Sample]:
        """Return the predictions on a split; empty for classification and rotated boxes."""
        path = self._predictions(split)
        with np.load(path) as file:
            return [] if "labels" in file.files else load_samples(path)

    def labels(self, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return (N, 2) true and predicted classes on a split; (0, 2) where the task has none."""
        with np.load(self._predictions(split)) as file:
            return np.asarray(file["labels"]) if "labels" in file.files else np.zeros((0, 2), dtype=np.int64)

    def _predictions(self, split: str) -> Path:
        return self.directory / str(self.result["predictions"][split])


def bootstrap_images(
    groups: Mapping[str, Sequence[Measured]], split: str, *, baseline: str, metric: str, n_resamples: int
) -> dict[str, Difference]:
    """Return the paired bootstrap over images of every configuration against the baseline.

    Args:
        groups: By configuration its trainings, with the same seeds in the same order.
        split: The split.
        baseline: The configuration to compare with.
        metric: `mAP50-95` or `mAP50`; classification always compares top-1 accuracy.
        n_resamples: Bootstrap resamples.

    Returns:
        By configuration, without the baseline; empty without predictions or objects, or with only a baseline.
    """
    if len(groups) < 2:
        return {}
    first = groups[baseline][0]
    if len(first.labels(split)):
        hits = {
            name: [(labels[:, 0] == labels[:, 1]).astype(float) for labels in (c.labels(split) for c in group)]
            for name, group in groups.items()
        }
        return bootstrap_mean(hits, baseline=baseline, n_resamples=n_resamples)
    samples = {name: [child.samples(split) for child in group] for name, group in groups.items()}
    base = samples[baseline][0]
    if not base or not any(len(sample.gt_boxes) for sample in base):
        return {}
    n_classes = len(first.result["names"])
    return bootstrap_map(samples, baseline=baseline, n_classes=n_classes, metric=metric, n_resamples=n_resamples)
