"""What a gate says."""

import math
from dataclasses import dataclass

GATES = (
    "integrity",
    "metadata",
    "parity",
    "accuracy_floor",
    "accuracy_drop",
    "class_drop",
    "champion_drop",
    "latency",
    "speedup",
    "size",
    "memory",
    "smoke",
)
"""Every gate, in the order in which they are asked."""

OFF = "off"
"""The limit of a gate that is not asked."""

_ROUNDING = 1e-9
"""What a sum of floats may be off by: a drop of .51 to .5 is one of .01, not of .010000000000000009."""


@dataclass(frozen=True)
class Verdict:
    """What one gate found.

    Attributes:
        gate: One of `GATES`.
        value: What was measured, with its unit; empty where nothing could be.
        limit: What it is held against: `>= 0.3`, `no floor set`, or `off`.
        passed: Whether the version may pass.
        why: What stands behind it, in one line; for one that failed the reason and the remedy.
    """

    gate: str
    value: str
    limit: str
    passed: bool
    why: str = ""

    @property
    def word(self) -> str:
        """`pass`, `fail`, or `off`."""
        return OFF if self.limit == OFF else "pass" if self.passed else "fail"


def reaches(value: float, limit: float) -> bool:
    """Return whether `value` is at least `limit`, but for rounding; what is not a number reaches nothing."""
    return not math.isnan(value) and value >= limit - _ROUNDING


def exceeds(value: float, limit: float) -> bool:
    """Return whether `value` is above `limit` by more than rounding."""
    return value > limit + _ROUNDING
