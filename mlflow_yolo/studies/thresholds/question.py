"""What is asked of `thresholds`: the grid, the objective, and how a detection is judged."""

import math
from dataclasses import dataclass, field

from mlflow_yolo.detection.objective import Objective
from mlflow_yolo.exceptions import ArgumentError

LOWEST_CONF = 0.001
"""Score above which detections are kept."""
IOU_STEP = 0.05
_MOST_VALUES = 1000
_JUDGES = ("auto", "boxes", "masks")
_PER_CLASS = ("auto", "true", "false")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        confs: Confidences of the surface, rising; the choice is between the first and the last of them.
        ious: Overlaps of suppression, rising; the choice is one of them.
        objective: What the point shall be best in.
        max_det: Largest number of detections an image.
        match_iou: Overlap with an object from which a detection is right: .50, .55, … .95.
        judge: Whether `boxes` or `masks` are compared with the object's; `auto` for masks where the model makes them.
        per_class: Whether a confidence for each class is recommended; `auto` where that is shown to be better.

    Raises:
        ArgumentError: A value that cannot be used.
    """

    confs: tuple[float, ...]
    ious: tuple[float, ...]
    objective: Objective = field(default_factory=Objective)
    max_det: int = 300
    match_iou: float = 0.5
    judge: str = "auto"
    per_class: str = "auto"

    def __post_init__(self) -> None:
        if self.confs[0] < LOWEST_CONF:
            raise ArgumentError(
                f"conf={self.confs[0]:g} is below {LOWEST_CONF:g}, and such detections are not kept. Begin higher."
            )
        if self.max_det < 1:
            raise ArgumentError(f"max_det={self.max_det} keeps nothing. Use 1 or more.")
        if not math.isclose(self.level, (self.match_iou - 0.5) / 0.05, abs_tol=1e-6) or not 0 <= self.level <= 9:
            raise ArgumentError(f"match_iou={self.match_iou:g} is none of 0.5, 0.55, … 0.95. Use one of them.")
        for name, value, known in (("judge", self.judge, _JUDGES), ("per_class", self.per_class, _PER_CLASS)):
            if value not in known:
                raise ArgumentError(f"{name}={value} is not known. Use one of {', '.join(known)}.")

    @property
    def level(self) -> int:
        """Index of `match_iou` among Ultralytics' ten thresholds."""
        return round((self.match_iou - 0.5) / 0.05) if math.isfinite(self.match_iou) else -1

    @property
    def span(self) -> tuple[float, float]:
        """Least and greatest confidence that may be chosen."""
        return self.confs[0], self.confs[-1]

    def masks(self, task: str) -> bool:
        """Return whether masks are judged.

        Raises:
            ArgumentError: Masks are asked for and the model makes none.
        """
        if self.judge == "masks" and task != "segment":
            raise ArgumentError(f"judge=masks needs a model for segment, this one is for {task}. Use judge=boxes.")
        return task == "segment" and self.judge != "boxes"


def parse_grid(text: str, name: str) -> tuple[float, ...]:
    """Return the values, rising and each once, of `low:high:step`, a list `0.1,0.2` or a single number.

    Args:
        text: As it was written; the last value of a range is the greatest that is not above `high`.
        name: `conf` or `iou`, for messages.

    Raises:
        ArgumentError: It is none of these, holds nothing or too much, or leaves 0 to 1.
    """
    parts = text.split(":")
    if len(parts) > 1:
        values = _range([_number(part, text, name) for part in parts], text, name)
    else:
        values = sorted({_number(part, text, name) for part in text.split(",") if part.strip()})
    if not values:
        raise ArgumentError(f"{name}={text} names no value. Write low:high:step or a list, as in {_example(name)}.")
    return tuple(values)


def _range(bounds: list[float], text: str, name: str) -> list[float]:
    if len(bounds) != 3:
        raise ArgumentError(f"{name}={text} is no range. Write low:high:step, as in {_example(name)}.")
    low, high, step = bounds
    if high < low:
        raise ArgumentError(f"{name}={text} is empty: {low:g} is above {high:g}. Write the lower bound first.")
    if step <= 0:
        raise ArgumentError(f"{name}={text} never gets anywhere: its step is {step:g}. Use a step above 0.")
    n = int((high - low) / step + 1e-9) + 1
    if n > _MOST_VALUES:
        raise ArgumentError(f"{name}={text} has {n} values. Use a larger step: the choice is exact whatever the grid.")
    return [round(low + index * step, 10) for index in range(n)]


def _number(word: str, text: str, name: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ArgumentError(
            f"{name}={text}: {word.strip()!r} is not a number. Write low:high:step, as in {_example(name)}."
        ) from None
    if not 0 <= value <= 1:
        raise ArgumentError(f"{name}={text}: {value:g} is not in 0 to 1. Use values between them.")
    return value


def _example(name: str) -> str:
    return "0.05:0.95:0.05" if name == "conf" else "0.3:0.8:0.05"
