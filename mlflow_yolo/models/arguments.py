"""Ultralytics' training arguments: accepted under their own names, checked before anything is trained."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mlflow_yolo.exceptions import ArgumentError

RESERVED = frozenset({"model", "data", "task", "mode", "resume", "save_dir", "project", "name", "exist_ok", "cfg"})
"""Arguments that this package sets itself."""


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """Return Ultralytics arguments from the command line's leftover words.

    Args:
        words: Pairs `--name value`, or `--name=value`; `-` and `_` are the same in a name.

    Returns:
        Name to value; numbers, booleans and lists are read as YAML reads them.

    Raises:
        ArgumentError: A word that is no option, or an option without a value.
    """
    arguments: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ArgumentError(f"{word!r} is not an option. Write Ultralytics arguments as --name value.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ArgumentError(f"--{name} has no value. Write --{name} value.")
            value = rest.pop(0)
        arguments[name.replace("-", "_")] = read_value(value)
    return arguments


def read_value(text: str) -> Any:
    """Return `text` as the number, boolean, null or list that YAML reads in it; `1e-3` is a number too."""
    try:
        return float(text) if "e" in text.lower() and text[:1] in "+-.0123456789" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def check_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return `arguments` as Ultralytics will use them.

    Args:
        arguments: Ultralytics training arguments by name.

    Raises:
        ArgumentError: A name that does not exist (the nearest one is named), one that this package sets itself, or a
            value that Ultralytics refuses.
    """
    from ultralytics.cfg import check_cfg
    from ultralytics.utils import DEFAULT_CFG_DICT

    for name in arguments:
        if name in RESERVED:
            raise ArgumentError(f"{name} is set by mlflow_yolo and cannot be passed through. Leave it out.")
        if name not in DEFAULT_CFG_DICT:
            near = difflib.get_close_matches(name, list(DEFAULT_CFG_DICT), n=1)
            hint = f"Did you mean {near[0]}?" if near else "See the list of Ultralytics' training arguments."
            raise ArgumentError(f"{name} is not an Ultralytics training argument. {hint}")
    checked = dict(arguments)
    try:
        check_cfg(checked)
    except (TypeError, ValueError) as error:
        raise ArgumentError(" ".join(str(error).split())) from error
    return checked


def check_positive(**values: float | None) -> None:
    """Raise ArgumentError naming the first value below 1; None is a value not given."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} trains nothing. Use {name}=1 or more.")


def check_every_n_steps(value: int | None) -> None:
    """Raise ArgumentError for a sampling interval below 1; None is a value not given."""
    if value is not None and value < 1:
        raise ArgumentError(f"every_n_steps={value} samples nothing. Use 1 for every optimizer step.")


def check_optimizer(optimizer: str) -> str:
    """Return `optimizer` if Ultralytics has it and lr0 counts with it.

    Raises:
        ArgumentError: An unknown optimizer, or `auto`, which ignores lr0 and so makes configurations incomparable.
    """
    known = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")
    if optimizer.lower() == "auto":
        raise ArgumentError("optimizer=auto ignores lr0, so configurations would not be comparable. Use AdamW or SGD.")
    for name in known:
        if optimizer.lower() == name.lower():
            return name
    raise ArgumentError(f"optimizer={optimizer} does not exist. Use one of {', '.join(known)}.")


def check_device(device: str) -> str:
    """Return the device as Ultralytics takes it; `auto` becomes the first GPU, or the CPU where there is none.

    Raises:
        ArgumentError: A device this machine does not have, or several GPUs at once: the commands read a training's
            results in their own process, and Ultralytics then trains in others.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = device.strip().lower().replace("cuda:", "")
    if name in ("", "auto"):
        return "0" if n_gpus else "cpu"
    if name == "cuda" and n_gpus:
        return "0"
    if name == "cpu" or (name == "mps" and torch.backends.mps.is_available()):
        return name
    indices = name.split(",")
    if n_gpus and all(index.isdigit() and int(index) < n_gpus for index in indices):
        if len(indices) > 1:
            raise ArgumentError(
                f"device={device} names several GPUs, and this command trains on one. Use device=0, or a script of "
                "your own with mlflow_yolo.autolog()."
            )
        return name
    have = f"cpu and {n_gpus} GPU(s): 0 to {n_gpus - 1}" if n_gpus else "cpu only, no CUDA GPU"
    raise ArgumentError(f"device={device} does not exist: this machine has {have}. Use device=cpu or device=auto.")


def check_imgsz(imgsz: int) -> int:
    """Return `imgsz` if a YOLO model can take it.

    Raises:
        ArgumentError: It is below 32, the smallest input of a model with stride 32.
    """
    if imgsz < 32:
        raise ArgumentError(
            f"imgsz={imgsz} is too small: a YOLO model needs 32 pixels or more. Use for example imgsz=640."
        )
    return imgsz
