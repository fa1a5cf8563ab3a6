"""The weights that drift is measured from, kept beside the statistics for as long as a training may be resumed."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

FILE = "start_weights.pt"


def save_start(directory: Path, weights: Mapping[str, Tensor]) -> None:
    """Keep `weights`, by parameter name, in `directory`; a reader sees all of them or none.

    Raises:
        OSError: The disk refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{FILE}.{os.getpid()}"
    try:
        torch.save({name: weight.cpu() for name, weight in weights.items()}, temporary)
        temporary.replace(directory / FILE)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(f"{directory / FILE} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_start(directory: Path) -> dict[str, Tensor]:
    """Return the weights kept in `directory`; empty where there are none or the file is damaged."""
    try:
        kept = torch.load(directory / FILE, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen types for a damaged file, and drift can begin anew
        return {}
    return kept if isinstance(kept, dict) else {}


def forget_start(directory: Path) -> None:
    """Remove what was kept; a training that has finished is not resumed."""
    (directory / FILE).unlink(missing_ok=True)
