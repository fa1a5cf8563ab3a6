"""The epochs of a training so far: their values and what they cost."""

import statistics
from dataclasses import dataclass, field

from mlflow_yolo.tracking.events.training_values import headline, peak_memory_mb


@dataclass
class EpochHistory:
    """Values of finished epochs, continued from stage to stage and from attempt to attempt.

    Attributes:
        epochs: Per finished epoch its values by name, `seconds` among them.
        step_ms: Milliseconds of every training step.
        counts: Parameters and BatchNorm layers, frozen and not.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """Return what the training cost: seconds, milliseconds a step, memory and parameters; empty without epochs."""
        if not self.epochs:
            return {}
        seconds = [epoch["seconds"] for epoch in self.epochs]
        return {
            "train_s": sum(seconds),
            "seconds_per_epoch_mean": statistics.fmean(seconds),
            "step_ms": statistics.median(self.step_ms) if self.step_ms else 0.0,
            "peak_memory_mb": peak_memory_mb(),
            "epochs_trained": float(len(self.epochs)),
            **self.counts,
        }

    def curves(self) -> dict[str, list[float]]:
        """Return every per-epoch value by name, NaN in an epoch without it; empty before the first epoch has ended."""
        names = dict.fromkeys(name for epoch in self.epochs for name in epoch)
        return {name: [epoch.get(name, float("nan")) for epoch in self.epochs] for name in names}

    def headline_curve(self) -> list[tuple[float, float]]:
        """Return per epoch the headline metric and the seconds of training until its end."""
        seconds = 0.0
        curve = []
        for epoch in self.epochs:
            seconds += epoch["seconds"]
            curve.append((headline(epoch)[1], seconds))
        return curve
