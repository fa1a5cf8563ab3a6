"""One dimension of a search: its values, how they are written without quotes, and what Optuna is told of them.

a:b          every number from a to b          a:b:log      the same, on a logarithmic scale
a:b:step     a, a + step, … up to b            x+y+z        these values only
x            always x
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from mlflow_yolo.exceptions import ArgumentError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = bool | int | float | str
Kind = Literal["float", "int", "choice"]
_PLUS = re.compile(r"(?<!\d[eE])\+")  # not the one of 1e+3


@dataclass(frozen=True)
class Dimension:
    """One dimension of a search.

    Attributes:
        name: Its name, which is also that of the param of a trial's run.
        kind: `float` or `int` from `low` to `high`, or a `choice`.
        low: Lowest value.
        high: Highest value, included.
        log: Whether the logarithm is what is spread evenly; never together with `step`.
        step: Distance between two values; None for every float, or for whole numbers 1 apart.
        choices: The values of a choice, in the order written.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()

    @property
    def is_fixed(self) -> bool:
        """Whether it has one value only, so that there is nothing to search."""
        return len(self.choices) == 1 if self.kind == "choice" else self.low == self.high

    @property
    def values(self) -> tuple[Value, ...] | None:
        """All its values, ascending unless they are choices; None where they cannot be counted."""
        if self.kind == "choice":
            return self.choices
        if self.is_fixed:
            return (self._typed(self.low),)
        if self.kind == "float" and self.step is None:
            return None
        return tuple(self._typed(value) for value in _grid(self.low, self.high, self.step or 1))

    @property
    def text(self) -> str:
        """The dimension as it is written: `lr0=0.0001:0.1:log`."""
        if self.kind == "choice":
            return f"{self.name}={'+'.join(map(_written, self.choices))}"
        ends = [self.low] if self.is_fixed else [self.low, self.high]
        last = ["log"] if self.log else [] if self.step is None else [_written(self.step)]
        return f"{self.name}={':'.join([*map(_written, ends), *(last if len(ends) == 2 else [])])}"

    def distribution(self) -> "BaseDistribution":
        """Return the dimension as Optuna knows it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Any) -> bool:
        """Return whether a trial of this search can have this value."""
        if self.kind == "choice":
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.kind == "float" and self.step is None:
            return True
        steps = (value - self.low) / (self.step or 1)
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def nearest(self, value: Value) -> Value:
        """Return the value of the dimension that is nearest to `value`; the first choice where nothing is near."""
        if self.contains(value):
            return value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "choice":
            numbers = [one for one in self.choices if isinstance(one, int | float) and not isinstance(one, bool)]
            return min(numbers, key=lambda one: abs(one - float(value))) if is_number and numbers else self.choices[0]
        if not is_number:
            return self._typed(self.low)
        if values := self.values:
            return min(values, key=lambda one: abs(float(one) - float(value)))
        return self._typed(min(max(float(value), self.low), self.high))

    def to_json(self) -> dict[str, Any]:
        """Return the dimension as JSON-able data."""
        if self.kind == "choice":
            return {"name": self.name, "kind": self.kind, "choices": list(self.choices)}
        ends = {"low": self._typed(self.low), "high": self._typed(self.high)}
        return {"name": self.name, "kind": self.kind, **ends, "log": self.log, "step": self.step}

    def _typed(self, value: float) -> int | float:
        return int(value) if self.kind == "int" else float(value)


def numbers(
    name: str, text: str, read: Callable[[str], float], *, kind: Kind, step: float | None = None, example: str
) -> Dimension:
    """Return a dimension of numbers from what is written after `name=`.

    Args:
        name: Its name.
        text: A range, choices or one value.
        read: Returns the number that a word means.
        kind: `int` or `float`.
        step: Distance between two values of a range that names none.
        example: A range that could be written, for the remedy.

    Raises:
        ArgumentError: It holds no value, too many parts, or a logarithm of 0.
    """
    if len(words := _PLUS.split(text)) > 1:
        return Dimension(name, "choice", choices=_unique(name, [_typed(read(word.strip()), kind) for word in words]))
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 1:
        low = read(parts[0])
        return Dimension(name, kind, low, low)
    if len(parts) > 3 or not all(parts):
        raise ArgumentError(f"{name}={text} is not a range: low:high, low:high:log or low:high:step. Write {example}.")
    low, high = read(parts[0]), read(parts[1])
    if low > high:
        raise ArgumentError(f"{name}={text} is an empty range: the lower end comes first. Write {name}={_flip(parts)}.")
    if parts[2:] == ["log"]:
        return _logarithmic(name, text, low, high, kind=kind, step=step)
    if len(parts) == 3:
        step = _step(name, text, parts[2], high - low, kind=kind)
    return _stepped(Dimension(name, kind, low, high), step)


def words(name: str, text: str, read: Callable[[str], Value]) -> Dimension:
    """Return a dimension of words joined by `+`; `read` returns what each means or says that it means nothing."""
    return Dimension(name, "choice", choices=_unique(name, [read(word.strip()) for word in _PLUS.split(text)]))


def number(name: str, word: str, *, kind: Kind, example: str) -> float:
    """Return the number that a word means.

    Raises:
        ArgumentError: It is none, is not finite, or is not whole where a whole one is needed.
    """
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise ArgumentError(f"{name}={word} is not a number. Write for example {example}.")
    if kind == "int" and not value.is_integer():
        raise ArgumentError(f"{name}={word} is not a whole number. Write for example {example}.")
    return value


def _logarithmic(name: str, text: str, low: float, high: float, *, kind: Kind, step: float | None) -> Dimension:
    if low <= 0:
        above = "1" if kind == "int" else _written(high / 1000 or 0.001)
        raise ArgumentError(
            f"{name}={text}: {_written(low)} has no logarithm. "
            f"Start above 0, for example {name}={above}:{_written(high if high > 0 else 0.1)}:log."
        )
    if step is not None:
        raise ArgumentError(
            f"{name}={text}: its values are {_written(step)} apart, not spread by logarithm. Drop :log."
        )
    return Dimension(name, kind, low, high, log=low < high)


def _step(name: str, text: str, word: str, length: float, *, kind: Kind) -> float:
    """Return the step that a range ends with."""
    try:
        step = number(name, word, kind=kind, example="")
    except ArgumentError:
        whole = "a whole number" if kind == "int" else "a number"
        raise ArgumentError(f"{name}={text}: {word} is neither log nor a step, {whole} above 0.") from None
    if not 0 < step <= length:
        raise ArgumentError(f"{name}={text}: a step of {word} is not above 0 and within the range. Use a smaller one.")
    return step


def _stepped(dimension: Dimension, step: float | None) -> Dimension:
    """Return a range in steps; it ends at the last value that a step reaches."""
    if step is None or dimension.is_fixed:
        return dimension
    high = float(_grid(dimension.low, dimension.high, step)[-1])
    one_apart = dimension.kind == "int" and step == 1
    return Dimension(dimension.name, dimension.kind, dimension.low, high, step=None if one_apart else step)


def _grid(low: float, high: float, step: float) -> list[float]:
    """Return low, low + step, … up to high, in decimal: 0, 0.1, 0.2, 0.3."""
    first, last, distance = (Decimal(repr(float(value))) for value in (low, high, step))
    return [float(first + i * distance) for i in range(int((last - first) // distance) + 1)]


def _unique(name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    for value in values:
        if value == "":
            raise ArgumentError(f"{name} has an empty value between two +. Write the values as x+y.")
        if values.count(value) > 1:
            raise ArgumentError(f"{name} has {_written(value)} twice. Write each value once.")
    return tuple(values)


def _typed(value: float, kind: Kind) -> float:
    return int(value) if kind == "int" else value


def _flip(parts: Sequence[str]) -> str:
    return ":".join([parts[1], parts[0], *parts[2:]])


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, int | float) else value
