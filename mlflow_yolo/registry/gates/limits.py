"""What a version has to reach: defaults, and a small YAML that changes them.

    accuracy_floor: 0.3     # of mAP50-95, or top1
    p95_ms: 20              # of inference at batch size 1, on the machine that promotes
    speedup: off            # a gate, or its limit, that is not asked

The defaults of the drops were measured on BCCD (72 test images, YOLO11n at 320 pixels; figures in hundredths). Against
its float32 parent the lower end of the change was -0.06 for fp16, -0.23 and -0.28 for int8 in ONNX Runtime, -0.38 in
OpenVINO, -0.59 for bf16: one point passes all of them, and refuses 256 instead of 320 pixels (-4.3) and pruning by 45 %
(-2.6). No class of these lost more than 0.8 points, while 256 pixels took 9.8 from the platelets. Between two
trainings the interval is wider, +-1.4 to 1.7 points: with one point a champion could not be followed by its equal.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.gates.gate import GATES, OFF


@dataclass(frozen=True)
class Limits:
    """What the gates ask for; None asks for nothing.

    Attributes:
        accuracy_floor: Least mAP50-95 or top1, in [0, 1].
        max_drop: Largest loss of it against the parent, at the lower end of the interval over images.
        max_class_drop: Largest loss of a class' score against the parent.
        max_champion_drop: Largest loss against the champion, at the lower end of the interval over images.
        min_agreement: Least agreement with the parent's detections, of what is no float32 export, in [0, 1].
        p95_ms: Largest 95th percentile of the time of one inference.
        min_speedup: What the lower end of the speed against the parent has to lie above.
        size_mb: Largest size of the file or folder, 10^6 bytes.
        memory_mb: Largest resident memory of a process that runs it, 10^6 bytes.
        hardware: Fingerprint of the machine that times have to come from; empty for the one that asks.
        off: Gates that are not asked.
    """

    accuracy_floor: float | None = None
    max_drop: float = 0.01
    max_class_drop: float = 0.03
    max_champion_drop: float = 0.02
    min_agreement: float = 0.95
    p95_ms: float | None = None
    min_speedup: float = 1.05
    size_mb: float | None = None
    memory_mb: float | None = None
    hardware: str = ""
    off: frozenset[str] = frozenset()

    def only(self, gates: Iterable[str]) -> "Limits":
        """Return the same limits with all other gates off."""
        return replace(self, off=self.off | (set(GATES) - set(gates)))


_GATE_OF = {
    "accuracy_floor": "accuracy_floor",
    "max_drop": "accuracy_drop",
    "max_class_drop": "class_drop",
    "max_champion_drop": "champion_drop",
    "min_agreement": "parity",
    "p95_ms": "latency",
    "min_speedup": "speedup",
    "size_mb": "size",
    "memory_mb": "memory",
}
"""Which gate asks for a limit."""

_SHARES = {"accuracy_floor", "min_agreement"}
_DROPS = {"max_drop", "max_class_drop", "max_champion_drop"}


def read_limits(path: Path | None) -> Limits:
    """Return the limits of a YAML file, the defaults where it says nothing or there is none.

    Raises:
        ArgumentError: The file cannot be read, or holds an unknown name or a value that cannot be one.
    """
    if path is None:
        return Limits()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise ArgumentError(f"gates={path} cannot be read: {reason}. Use lines such as 'p95_ms: 20'.") from error
    if content is None:
        return Limits()
    if not isinstance(content, Mapping):
        raise ArgumentError(f"gates={path} holds no names with values. Use lines such as 'p95_ms: 20'.")
    return parse_limits(content, name=str(path))


def parse_limits(content: Mapping[Any, Any], *, name: str = "gates") -> Limits:
    """Return the limits that names and values mean.

    Args:
        content: Limits by the names of `Limits`, numbers or `off`; and names of gates, `on` or `off`.
        name: Where they stand, for errors.

    Raises:
        ArgumentError: A name is unknown or a value cannot be one.
    """
    given: dict[str, Any] = {}
    off = set()
    for key, value in content.items():
        if key == "hardware":
            given[key] = _fingerprint(value, name)
        elif key not in _GATE_OF and key not in GATES:
            raise ArgumentError(f"{name}: {key} is unknown. {_suggestion(str(key))}")
        elif _is_off(value):
            off.add(_GATE_OF.get(key, key))
        elif key in _GATE_OF:
            given[key] = _number(key, value, name)
        elif value is not True and value != "on":
            raise ArgumentError(f"{name}: {key}={value} cannot be used. {_of_gate(key)}")
    return Limits(**given, off=frozenset(off))


def _is_off(value: Any) -> bool:
    """Return whether a value is the word off, which YAML reads as false."""
    return value is False or (isinstance(value, str) and value.lower() == OFF)


def _number(key: str, value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(f"{name}: {key}={value} is no number. Use one such as {_example(key)}, or off.")
    if key in _SHARES and not 0 <= value <= 1:
        raise ArgumentError(f"{name}: {key}={value:g} is out of range. Use 0 to 1, such as {_example(key)}, or off.")
    if key in _DROPS and not 0 <= value < 1:
        raise ArgumentError(f"{name}: {key}={value:g} is out of range. Use a share below 1: one point is 0.01; or off.")
    if key not in _SHARES | _DROPS and value <= 0:
        raise ArgumentError(f"{name}: {key}={value:g} is out of range. Use more than 0, such as {_example(key)}.")
    return float(value)


def _fingerprint(value: Any, name: str) -> str:
    # Digits alone are a number to YAML, and one that starts with 0 is another number.
    if isinstance(value, str) and len(value) == 12 and not set(value) - set("0123456789abcdef"):
        return value
    raise ArgumentError(f"{name}: hardware={value} is no fingerprint. Use the quoted 12 digits of bench.fingerprint.")


def _suggestion(key: str) -> str:
    names = [one.name for one in fields(Limits) if one.name != "off"]
    close = difflib.get_close_matches(key, [*names, *GATES], n=1)
    return f"Did you mean {close[0]}?" if close else f"Use some of {', '.join(names)}, or a gate and off."


def _of_gate(gate: str) -> str:
    names = [key for key, asked in _GATE_OF.items() if asked == gate]
    return f"Use off, or set {names[0]}." if names else "Use on or off."


def _example(key: str) -> str:
    examples = {"accuracy_floor": "0.3", "min_agreement": "0.95", "min_speedup": "1.05"}
    return examples.get(key, "0.01" if key in _DROPS else "20")
