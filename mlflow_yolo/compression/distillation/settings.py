"""What is distilled, how strongly and how softly; as the user writes it and as a job file keeps it."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import ArgumentError

LOSSES = {
    "response": "the class scores",
    "localisation": "the boxes (not for classify)",
    "fitnets": "the features the head gets, value by value",
    "attention": "where these features are strong",
    "cwd": "where each channel of these features is strong",
    "rkd": "how the images of a batch lie to one another",
    "native": "Ultralytics' own feature distillation (distill_model; not for classify)",
}
"""What each loss compares, by the name the user writes."""

FEATURE_LOSSES = frozenset({"fitnets", "attention", "cwd", "rkd"})

TEMPERATURES = {"response": 2.0, "localisation": 10.0, "cwd": 4.0}
"""Temperatures of the losses that have one: LD's and CWD's as in their papers, for classes the middle of 1 to 4."""

DEFAULT_LOSSES = dict.fromkeys(("detect", "segment"), "response=1,localisation=0.25") | {"classify": "response=1"}
"""Losses by task where the user names none. On BCCD (YOLO11n at 320 pixels, untrained student, trained teacher) they
begin about as large as Ultralytics' own: response 3.8 beside cls 4.2, localisation 25.7 / 4 beside box + dfl 9.9."""


@dataclass(frozen=True)
class Distillation:
    """What a student learns from its teacher.

    Attributes:
        teacher: The teacher's checkpoint: a path of a .pt file, `digits`, or a name that Ultralytics publishes.
        weights: Factor of each loss, by name (see `LOSSES`). With a factor of 0 a loss is measured, not trained on.
        temperatures: Temperature by loss; what is not named is as in `TEMPERATURES`.
        warmup_epochs: Epochs over which the factors rise from 0. As with Ultralytics' own warm-up, the last epoch of a
            training always has the full factors.
        trust: Load a teacher even when its file names classes that are not trusted.

    Raises:
        ArgumentError: No teacher, no loss, an unknown loss, a weight or a warm-up that is negative or no number, a
            temperature that is not above 0, or one for a loss that has none.
    """

    teacher: str
    weights: Mapping[str, float]
    temperatures: Mapping[str, float] = field(default_factory=dict)
    warmup_epochs: float = 3.0
    trust: bool = False

    def __post_init__(self) -> None:
        if not self.teacher:
            raise ArgumentError(
                "teacher= names no file. Pass the checkpoint of a trained, larger model of the same data."
            )
        if not self.weights:
            raise ArgumentError(
                f"losses= names no loss: nothing would be distilled. Use one or more of {_list(LOSSES)}."
            )
        _check_names("losses", self.weights, LOSSES)
        _check_names("temperature", self.temperatures, TEMPERATURES)
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ArgumentError(f"losses={name}={weight:g} is not a weight. Use 0 or more.")
        for name, temperature in self.temperatures.items():
            if not (math.isfinite(temperature) and temperature > 0):
                raise ArgumentError(
                    f"temperature={temperature:g} for {name} is not a temperature. Use a value above 0."
                )
        if not (math.isfinite(self.warmup_epochs) and self.warmup_epochs >= 0):
            raise ArgumentError(
                f"warmup_epochs={self.warmup_epochs:g} of the distillation is no duration. Use 0 or more."
            )

    def temperature(self, loss: str) -> float:
        """Return the temperature of a loss that has one."""
        return float(self.temperatures.get(loss, TEMPERATURES[loss]))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Distillation":
        """Return the settings that `to_json` wrote."""
        return cls(**data)


def parse_distillation(
    teacher: str,
    losses: str,
    *,
    temperature: str = "",
    warmup_epochs: float = 3.0,
    trust: bool = False,
) -> Distillation:
    """Return the settings of a command line.

    Args:
        teacher: As in `Distillation`; a file that exists is named by its absolute path, for a resumed training.
        losses: Names and weights, `response=1,localisation=0.5,cwd=1`.
        temperature: Empty for the usual ones, a number for every loss that has a temperature, or `response=2,cwd=4`.
        warmup_epochs: As in `Distillation`.
        trust: As in `Distillation`.

    Raises:
        ArgumentError: As in `Distillation`; or a word that is not name=number, or a name given twice.
    """
    weights = _parse_pairs("losses", losses)
    if temperature.strip() and "=" not in temperature:
        value = _number("temperature", temperature, "a number above 0, or for example response=2,cwd=4")
        temperatures = dict.fromkeys(TEMPERATURES, value)
    else:
        temperatures = _parse_pairs("temperature", temperature)
    file = Path(teacher).expanduser()
    teacher = str(file.resolve()) if file.is_file() else teacher
    return Distillation(teacher, weights, temperatures, warmup_epochs, trust)


def _parse_pairs(argument: str, text: str) -> dict[str, float]:
    """Return the numbers of `a=1,b=2` by name; none of an empty text."""
    pairs: dict[str, float] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in word.partition("="))
        if name in pairs:
            raise ArgumentError(f"{argument}={text} names {name} twice. Name it once.")
        pairs[name] = _number(argument, value, f"{name}=1, the name and a number", word=word)
    return pairs


def _number(argument: str, value: str, remedy: str, *, word: str = "") -> float:
    try:
        return float(value)
    except ValueError:
        raise ArgumentError(f"{argument}={word or value} has no number. Write {remedy}.") from None


def _check_names(argument: str, given: Mapping[str, float], known: Mapping[str, object]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Use one or more of {_list(known)}."
            raise ArgumentError(f"{argument}={name} is unknown. {hint}")


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(names)
