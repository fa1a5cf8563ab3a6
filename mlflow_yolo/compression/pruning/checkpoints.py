"""Stock Ultralytics checkpoints: read for surgery, and written so that no class of this package is in them."""

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models import checkpoint as models
from mlflow_yolo.models.scan import scan

TASKS = ("detect", "segment", "classify")
BLOCKS = frozenset(
    {
        "Conv",
        "DWConv",
        "C2f",
        "C3k2",
        "C2PSA",
        "SPPF",
        "Upsample",
        "Concat",
        "Detect",
        "Segment",
        "Segment26",
        "Classify",
    }
)
"""The blocks of YOLOv8, 11 and 26."""


def read_network(checkpoint: Path, *, trust: bool = False) -> BaseModel:
    """Return the network of a checkpoint: float32, evaluation mode, every weight trainable, all training arguments.

    Args:
        checkpoint: A .pt file.
        trust: Load it even when it names classes other than PyTorch's, NumPy's and Ultralytics'.

    Raises:
        CheckpointError: It is no checkpoint, or of a task or an architecture that pruning does not know.
    """
    if not checkpoint.is_file():
        raise CheckpointError(f"model={checkpoint} does not exist. Give the path of a .pt checkpoint.")
    if not trust:
        scan(checkpoint)
    loaded = models.load(str(checkpoint))
    network, found = loaded.model, loaded.ckpt or {}
    if loaded.task not in TASKS:
        raise CheckpointError(f"model={checkpoint} is made for {loaded.task}. Pruning knows {', '.join(TASKS)}.")
    unknown = sorted({type(block).__name__ for block in network.model} - BLOCKS)
    if unknown:
        raise CheckpointError(
            f"model={checkpoint} has blocks that pruning does not know: {', '.join(unknown)}. Use YOLOv8, 11 or 26."
        )
    if network.is_fused():
        raise CheckpointError(f"model={checkpoint} is fused: its batch norms are gone. Use it as training saved it.")
    known = {**DEFAULT_CFG_DICT, **(found.get("train_args") or {})}
    network.args = {name: known[name] for name in DEFAULT_CFG_DICT}
    return network.float().eval().requires_grad_(True)


def write_network(network: BaseModel, path: Path) -> None:
    """Write a network as a checkpoint that plain Ultralytics loads: half precision, nothing of a training.

    The file appears whole or not at all.

    Raises:
        CheckpointError: It cannot be written.
    """
    copy = deepcopy(network).half().requires_grad_(False)
    copy.criterion = None
    if hasattr(copy, "pt_path"):
        del copy.pt_path  # where the parent lay on this machine
    content: Mapping[str, Any] = {
        "epoch": -1,
        "model": copy,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "best_fitness": None,
        "train_args": dict(network.args),
        "date": datetime.now().astimezone().isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    }
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.") from error
