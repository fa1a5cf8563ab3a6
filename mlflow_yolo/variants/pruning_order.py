"""What a user asks to be removed from a model."""

from dataclasses import dataclass
from typing import Any

from mlflow_yolo.compression.pruning.settings import PruningSettings
from mlflow_yolo.exceptions import ArgumentError

METHODS = ("structured", "dead", "unstructured")


@dataclass(frozen=True)
class PruningOrder:
    """What is removed.

    Attributes:
        method: `structured`: the least important channels; `dead`: channels that do nothing; `unstructured`: the
            smallest weights become 0, which makes nothing smaller or faster.
        settings: Of structured pruning, else None.
        ratio: Share of weights that unstructured pruning clears.
        threshold: Channels whose mean |f'| is below it count as dead too; None for dead ones only.
    """

    method: str = "structured"
    settings: PruningSettings | None = None
    ratio: float = 0.0
    threshold: float | None = None

    @property
    def question(self) -> dict[str, Any]:
        """The params of the run."""
        settings = self.settings.to_json() if self.settings else {"ratio": self.ratio}
        return {"method": self.method, **settings} | ({"threshold": self.threshold} if self.method == "dead" else {})


def order_pruning(
    method: str = "structured",
    *,
    ratio: float = 0.3,
    parts: str = "",
    importance: str = "taylor",
    round_to: int = 8,
    steps: int = 1,
    seed: int = 0,
    threshold: float | None = None,
) -> PruningOrder:
    """Return what a command line asks to be removed.

    Args:
        method: One of `METHODS`.
        ratio: Share of channels, or of weights, that goes.
        parts: Ratios of parts, `backbone=0.4,neck=0.3`, or nothing.
        importance: See `PruningSettings`, like what follows.
        round_to: Widths become multiples of it.
        steps: In how many steps.
        seed: Decides which images are looked at.
        threshold: See `PruningOrder`.

    Raises:
        ArgumentError: One of them cannot be used.
    """
    if method not in METHODS:
        raise ArgumentError(f"method={method} does not exist. Use one of {', '.join(METHODS)}.")
    if method != "structured":
        if method == "unstructured" and not 0 < ratio < 1:
            raise ArgumentError(f"ratio={ratio:g} is not between 0 and 1. Use the share of weights to clear: 0.5.")
        return PruningOrder(method, None, ratio, threshold)
    by_part = {}
    for word in filter(None, (part.strip() for part in parts.split(","))):
        name, _, value = word.partition("=")
        try:
            by_part[name] = float(value)
        except ValueError:
            raise ArgumentError(f"parts={word} has no ratio. Write for example backbone=0.4,neck=0.3.") from None
    return PruningOrder(method, PruningSettings(ratio, by_part, importance, round_to, steps, seed), ratio)
