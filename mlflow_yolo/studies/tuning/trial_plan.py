"""What one trial of a search does, as plain data that survives a job file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlflow_yolo.training.plan import Plan

Span = tuple[float, float]


@dataclass(frozen=True)
class TrialPlan:
    """One trial: a model made smaller, measured, trained with one or more seeds, and its operating point looked up.

    Attributes:
        plan: The training; its seed is the first one.
        seeds: Further seeds, each trained in a run of its own below the trial's; empty for one training.
        prune: Share of the channels of every layer that pruning removes before training, 0 for no pruning.
        costs: Whether latency and size are measured before training, alone on the machine.
        runs: Timed runs of that measurement.
        conf: Lowest and highest confidence threshold looked at after training, None for none.
        iou: The same of the IoU threshold of non-maximum suppression.
        op_objective: What the operating point is best in, as in `thresholds`.
    """

    plan: Plan
    seeds: tuple[int, ...] = ()
    prune: float = 0.0
    costs: bool = False
    runs: int = 50
    conf: Span | None = None
    iou: Span | None = None
    op_objective: str = "f1"

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seed of the plan and the further ones."""
        return (self.plan.seed, *self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON-able data."""
        return {**asdict(self), "plan": self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrialPlan":
        """Return the trial that `to_json` wrote."""
        spans = {name: _span(data.get(name)) for name in ("conf", "iou")}
        return cls(**{**data, **spans, "plan": Plan.from_json(data["plan"]), "seeds": tuple(data.get("seeds", ()))})


def _span(bounds: Any) -> Span | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))
