"""The dimensions there are: what their words mean, which values they may have, and which value is known to be good."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_yolo.blocks import parse_freeze
from mlflow_yolo.exceptions import ArgumentError, FreezeError
from mlflow_yolo.models.argument_kinds import argument_kind, default_value, variable_arguments
from mlflow_yolo.models.arguments import check_arguments, check_imgsz, check_optimizer
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.studies.tuning.dimensions import Dimension, Kind, Value, number, numbers, words
from mlflow_yolo.training.strategies import STRATEGIES, check_lr_decay, check_strategy

REPLAYED = ("conf", "iou")
"""Dimensions of a finished model, looked up from one forward pass after training."""

OWN = ("model", "freeze", "strategy", "lr_decay", "prune")
"""Dimensions that are no argument of Ultralytics."""

STRIDE = 32
"""Pixels: sizes of the input between two multiples are one size to Ultralytics."""

_GOOD: dict[str, Value] = {"freeze": 0, "strategy": STRATEGIES[0], "lr_decay": 1.0, "prune": 0.0}
_EXAMPLES = {
    "freeze": "freeze=0:backbone",
    "lr0": "lr0=1e-4:1e-1:log",
    "prune": "prune=0:0.6",
    "lr_decay": "lr_decay=0.7:1",
    "imgsz": "imgsz=320:640",
}


def build(name: str, text: str, *, models: Mapping[str, Model]) -> Dimension:
    """Return a dimension from what is written of it, each of its values checked.

    Args:
        name: Its name.
        text: Its values, see `dimensions`.
        models: The models it must be valid for; only `freeze` asks.

    Raises:
        InputError: An unknown name (the nearest one is named), or a value that cannot be used.
    """
    if name == "model":
        return words(name, text, lambda word: word)
    if name == "freeze":
        return _freeze(text, models)
    if name == "strategy":
        return words(name, text, _checked(check_strategy))
    kind = _kind(name)
    if kind == "choice":
        return words(name, text, lambda word: _word(name, word))
    example = _EXAMPLES.get(name, f"{name}=1:5" if kind == "int" else f"{name}=0.1:0.5")
    step = STRIDE if name == "imgsz" else None
    dimension = numbers(
        name, text, lambda word: number(name, word, kind=kind, example=example), kind=kind, step=step, example=example
    )
    ends = (dimension.low, dimension.high)
    for value in (dimension.values if name == "imgsz" else dimension.choices) or ends:
        _check(name, int(value) if kind == "int" else float(value))
    return dimension


def check_replayed(name: str, text: str, *, task: str) -> tuple[float, float]:
    """Return the lowest and the highest threshold that is looked up after training.

    Raises:
        ArgumentError: The task has no such threshold, or it is not a range within (0, 1).
    """
    if task not in ("detect", "segment"):
        raise ArgumentError(f"space: {name} is looked up for detect and segment, not for {task}. Leave {name} out.")
    example = f"{name}=0.1:0.9"
    dimension = numbers(
        name, text, lambda word: number(name, word, kind="float", example=example), kind="float", example=example
    )
    if dimension.kind == "choice" or dimension.log or dimension.step:
        raise ArgumentError(
            f"{name}={text}: every threshold of a range is looked up, without training. Write a range, {example}."
        )
    if not 0 < dimension.low <= dimension.high < 1:
        raise ArgumentError(f"{name}={text} is not within 0 and 1, both excluded. Write for example {example}.")
    return dimension.low, dimension.high


def known_good(dimension: Dimension) -> Value:
    """Return the value that one starts with where nothing is searched."""
    first = dimension.choices[0] if dimension.choices else dimension.low
    default = _GOOD.get(dimension.name, default_value(dimension.name))
    return first if default is None else default


def _kind(name: str) -> Kind:
    if name in ("prune", "lr_decay"):
        return "float"
    kind = argument_kind(name)
    if kind == "float" or kind == "int":
        return kind
    if kind is not None:
        return "choice"
    names = [*OWN, *REPLAYED, *variable_arguments()]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use freeze, lr0, prune or an Ultralytics training argument."
    raise ArgumentError(f"space: {name} is not a dimension. {hint}")


def _freeze(text: str, models: Mapping[str, Model]) -> Dimension:
    """Return the number of leading frozen blocks; where models differ in what a word means, what is valid for all."""
    example = _EXAMPLES["freeze"]

    def depths(word: str) -> list[int]:
        return [_depth(word.strip(), model, name if len(models) > 1 else "") for name, model in models.items()]

    def whole(word: str) -> float:
        return number("freeze", word, kind="int", example=example)

    def same(word: str) -> float:
        if min(found := depths(word)) != max(found):
            raise FreezeError(
                f"freeze={word} is {min(found)} blocks of one model, {max(found)} of another. Use a number."
            )
        return found[0]

    low, colon, rest = text.partition(":")
    high, *last = rest.split(":")
    if not (colon and low.strip() and high.strip()):
        return numbers("freeze", text, same, kind="int", example=example)
    text = ":".join([str(max(depths(low))), str(min(depths(high))), *last])
    return numbers("freeze", text, whole, kind="int", example=example)


def _depth(word: str, model: Model, name: str) -> int:
    try:
        depth = parse_freeze(word, model.blocks)[-1].depth
    except FreezeError as error:
        raise FreezeError(f"model={name}: {error}" if name else str(error)) from error
    if depth is None:
        raise FreezeError(
            f"freeze={word} is no depth, the number of leading frozen blocks. Use a number, backbone or neck."
        )
    return depth


def _word(name: str, word: str) -> Value:
    if name == "optimizer":
        return check_optimizer(word)
    if word.lower() not in ("true", "false"):
        raise ArgumentError(f"{name}={word} is neither true nor false. Write {name}=true+false.")
    return word.lower() == "true"


def _checked(check: Callable[[str], None]) -> Callable[[str], str]:
    def read(word: str) -> str:
        check(word)
        return word

    return read


def _check(name: str, value: Any) -> None:
    """Hold one value to the bounds of its dimension."""
    if name == "prune":
        if not 0 <= value < 1:
            raise ArgumentError(f"prune={value:g} is not in [0, 1). Use the share of channels to remove: prune=0:0.6.")
    elif name == "lr_decay":
        check_lr_decay(value)
    elif name == "imgsz":
        if check_imgsz(value) % STRIDE:
            near = max(STRIDE, round(value / STRIDE) * STRIDE)
            raise ArgumentError(f"imgsz={value} is not a multiple of {STRIDE}, as a YOLO model needs. Use {near}.")
    elif name == "batch":
        if value < 1:
            raise ArgumentError(f"batch={value} trains nothing. Use batch=1 or more.")
    else:
        check_arguments({name: value})
