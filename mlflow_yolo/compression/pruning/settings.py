"""What is asked of structured pruning, checked before anything is opened."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mlflow_yolo.exceptions import ArgumentError

IMPORTANCES = ("l1", "l2", "taylor", "bn")
PARTS = ("backbone", "neck", "head")


@dataclass(frozen=True)
class PruningSettings:
    """How much is removed, and which channels go first.

    Attributes:
        ratio: Share of the channels of every layer that goes, in (0, 1). The work falls about with (1 - ratio)^2.
        parts: A ratio of its own in [0, 1) for `backbone`, `neck` or `head`.
        importance: What a channel is kept for: the size of the weights that make and read it (`l1`, `l2`), the change
            of the loss without it to first order (`taylor`; needs batches), or its batch norm's scale (`bn`).
        round_to: Widths become multiples of this.
        steps: Importance is looked at afresh after each of so many equal steps.
        seed: Decides which images the caller's batches are drawn from; pruning itself draws nothing.
    """

    ratio: float
    parts: Mapping[str, float] = field(default_factory=dict)
    importance: str = "l2"
    round_to: int = 1
    steps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ArgumentError: One of them cannot be used.
        """
        if not (math.isfinite(self.ratio) and 0 < self.ratio < 1):
            raise ArgumentError(f"ratio={self.ratio} is not between 0 and 1. Use the share of channels to remove: 0.3.")
        for part, ratio in self.parts.items():
            if part not in PARTS:
                raise ArgumentError(f"ratio of {part!r}: there is no such part. Use {', '.join(PARTS)}.")
            if not (math.isfinite(ratio) and 0 <= ratio < 1):
                raise ArgumentError(f"ratio={ratio} of the {part} is not in [0, 1). Use 0 to leave the {part} whole.")
        if self.importance not in IMPORTANCES:
            raise ArgumentError(f"importance={self.importance!r} is unknown. Use one of {', '.join(IMPORTANCES)}.")
        for name in ("round_to", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name}={value} is not a whole number of at least 1. Use for example {name}=1.")

    def ratio_of(self, part: str) -> float:
        """Return the share of channels that goes from layers of a part."""
        return self.parts.get(part, self.ratio)

    def rounds(self, n: int) -> "PruningSettings":
        """Return the settings of one of `n` prunings that together remove what these ask for, with training between.

        Each removes 1 - (1 - ratio)^(1/n) of what the one before left.
        """
        if n < 1:
            raise ArgumentError(f"rounds={n} is not a whole number of at least 1.")
        parts = {part: 1 - (1 - ratio) ** (1 / n) for part, ratio in self.parts.items()}
        return replace(self, ratio=1 - (1 - self.ratio) ** (1 / n), parts=parts)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return {**asdict(self), "parts": dict(self.parts)}
