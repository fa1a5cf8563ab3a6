"""Ultralytics' criterion with the distances to a teacher added to its loss."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_yolo.compression.distillation.distances import feature_distances, output_distances
from mlflow_yolo.compression.distillation.feature_maps import HeadInput, Projectors
from mlflow_yolo.compression.distillation.settings import Distillation


class DistillationCriterion:
    """What Ultralytics calls with predictions and a batch: its own criterion, and the teacher.

    It takes the place of `model.criterion` for the time of a training. A copy of it is a copy of Ultralytics' own
    criterion, so the moving average of the weights and every checkpoint stay without a teacher.

    The items `kd_<loss>` are the distances themselves, before weight and warm-up.
    """

    def __init__(
        self,
        base: Any,
        settings: Distillation,
        *,
        teacher: nn.Module,
        projectors: Projectors | None,
        maps: HeadInput,
        ramp: Callable[[], float],
    ) -> None:
        """Wrap a criterion.

        Args:
            base: Ultralytics' criterion.
            settings: The distillation.
            teacher: Its network, in evaluation mode, on the student's device.
            projectors: From the student's features to the teacher's; None where no loss compares features.
            maps: What the student's head got when it made the predictions that come.
            ramp: Returns the factor of all weights at this step, 0 to 1.
        """
        self.base = base
        self._settings = settings
        self._teacher = teacher
        self._projectors = projectors
        self._maps = maps
        self._ramp = ramp

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, one element a part, and its items."""
        loss, items = self.base(preds, batch)
        if isinstance(preds, tuple):  # a network in evaluation mode: nothing is trained
            return loss, items
        distances = self._distances(preds, batch["img"])
        terms = [
            weight * distances[name] for name, weight in self._settings.weights.items() if weight and name in distances
        ]
        # Ultralytics multiplies the losses of dense heads by the batch size, and that of classifiers not.
        size = len(batch["img"]) if isinstance(preds, dict) else 1
        added = self._ramp() * size * sum(terms, start=loss.new_zeros(1))
        kept = {f"kd_{name}": distance.detach() for name, distance in distances.items()}
        return torch.cat([loss.reshape(-1), added]), {**items, **kept}

    def _distances(self, preds: Any, images: Tensor) -> dict[str, Tensor]:
        """Return what the teacher says of the predictions and features, in single precision even under autocast."""
        seen = HeadInput()
        seen.watch(self._teacher)
        with torch.no_grad():
            teacher = self._teacher(images)[1]
        shares = {branch: getattr(self.base, key, 1.0) for branch, key in (("one2many", "o2m"), ("one2one", "o2o"))}
        with torch.autocast(images.device.type, enabled=False):
            found = output_distances(preds, teacher, self._settings, shares=shares)
            if self._projectors is None:
                return found
            student, teacher_maps = ([level.float() for level in maps.take()] for maps in (self._maps, seen))
            return found | feature_distances(student, self._projectors(student), teacher_maps, self._settings)

    def __getattr__(self, name: str) -> Any:
        """Return what Ultralytics asks its own criterion for, such as `update`."""
        if name == "base" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.base, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy(self.base, memo)
