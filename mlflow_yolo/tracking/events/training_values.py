"""What a training's own objects say about it: changed arguments, sizes, BatchNorm modes, memory, what decides."""

import sys
from collections.abc import Mapping
from typing import Any

import psutil

_LOGGED_ELSEWHERE = frozenset(
    {"model", "data", "save_dir", "project", "name", "exist_ok", "task", "mode", "workers", "resume"}
    | {"freeze", "seed", "lr0"}  # params of their own
)
"""Arguments that are no params under `args/`: the place, the dataset, and what is logged by its plain name."""

DECIDING = ("metrics/mAP50-95B", "metrics/accuracy_top1")


def changed_arguments(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that differ from Ultralytics' defaults, as text."""
    return {
        name: str(value)
        for name, value in arguments.items()
        if name not in _LOGGED_ELSEWHERE and name in defaults and value != defaults[name]
    }


def plain_params(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training is compared by, under plain names and as numbers: `freeze=10`, `lr0`, `seed`, `model`."""
    params = {name: arguments[name] for name in ("model", "data", "task", "seed", "lr0") if name in arguments}
    return {**params, "freeze": _freeze(arguments.get("freeze"))}


def _freeze(given: Any) -> int | str:
    """Return the number of leading frozen blocks, or the list as text where others are frozen."""
    if isinstance(given, list | tuple):
        is_depth = list(given) == list(range(len(given)))
        return len(given) if is_depth else ",".join(str(block) for block in given)
    return given if isinstance(given, int) else 0


def count_parameters(model: Any) -> dict[str, int]:
    """Return how many numbers the optimizer may change, and how many it may not."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {
        "parameters_trainable": sum(size for size, trainable in sizes if trainable),
        "parameters_frozen": sum(size for size, trainable in sizes if not trainable),
    }


def count_batch_norm(model: Any) -> dict[str, int]:
    """Return how many BatchNorm layers there are, and how many keep their statistics (eval) or learn them (train)."""
    modes = [module.training for module in model.modules() if type(module).__name__.startswith("BatchNorm")]
    return {"bn_total": len(modes), "bn_eval": modes.count(False), "bn_train": modes.count(True)}


def peak_memory_mb() -> float:
    """Return the peak memory of this process: of its GPU where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return float(getattr(psutil.Process().memory_info(), "peak_wset", 0) or _peak_resident_bytes()) / 2**20


def _peak_resident_bytes() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def headline(values: Mapping[str, float]) -> tuple[str, float]:
    """Return the name and value of the metric that decides among an epoch's values."""
    for name in DECIDING:
        if name in values:
            return name, values[name]
    return "", float("nan")
