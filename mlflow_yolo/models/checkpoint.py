"""Which model a word means, and whether its file may be opened: a checkpoint is code."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.blocks import Block, read_blocks
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.models.scan import scan, scan_yaml

if TYPE_CHECKING:
    from ultralytics import YOLO

EMBEDDED = ("digits", "digits.pt")
"""Words that mean the checkpoint shipped with this package."""

REGISTRY_PREFIX = "models:"
"""What an address in MLflow's model registry begins with."""

_SCANS = {".pt": scan, ".yaml": scan_yaml, ".yml": scan_yaml}


@dataclass(frozen=True)
class Model:
    """A model that was found, scanned and read once.

    Attributes:
        source: What Ultralytics is given: an absolute path of a .pt or .yaml file, or a name it downloads or knows.
        task: `detect`, `segment`, `classify`, `pose` or `obb`.
        blocks: The blocks of its own yaml.
        sha256: Digest of the checkpoint file, empty for a yaml.
        names: Class names by id.
        imgsz: Side of the input it was trained with, pixels; Ultralytics' default where it was not.
    """

    source: str
    task: str
    blocks: tuple[Block, ...]
    sha256: str
    names: tuple[str, ...] = ()
    imgsz: int = 640


def read_model(model: str, *, trust: bool = False) -> Model:
    """Return what `model` is, after its file has been scanned.

    Args:
        model: `digits` for the shipped checkpoint, a path of a .pt or .yaml file, or a name Ultralytics knows
            (`yolo11n.pt` is downloaded where it is missing, `yolo11n.yaml` is built untrained).
        trust: Load a file even when it would run code: it names classes other than PyTorch's, NumPy's and
            Ultralytics', or its yaml more than layers.

    Raises:
        CheckpointError: The file does not exist, is not a checkpoint, or would run code.
    """
    source = _locate(model)
    path = Path(source)
    if path.is_file() and not trust and path.suffix in _SCANS:
        _SCANS[path.suffix](path)
    network = load(source)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".pt" and path.is_file() else ""
    names = tuple(str(name) for _, name in sorted(network.names.items()))
    return Model(source, str(network.task), read_blocks(_yaml(network)), sha256, names, _imgsz(network))


def load(source: str, *, task: str | None = None) -> "YOLO":
    """Return the Ultralytics model of a located `source`.

    Raises:
        CheckpointError: Ultralytics cannot load it.
    """
    from ultralytics import YOLO

    try:
        network = YOLO(source, task=task, verbose=False)
        _yaml(network)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"model={source} cannot be loaded: {reason[:300]}. Use a YOLO .pt checkpoint, a model yaml or a model name."
        ) from error
    return network


def _locate(model: str) -> str:
    """Return the source that Ultralytics is given for the user's word."""
    if model.startswith(REGISTRY_PREFIX):
        raise CheckpointError(
            f"model={model} is a registered variant: an exported file, whose weights cannot be trained, pruned or "
            "converted again. Use the .pt checkpoint that it was made from."
        )
    if model in EMBEDDED:
        from mlflow_yolo.checkpoints import path

        return str(path())
    file = Path(model).expanduser()
    if file.is_file():
        return str(file.resolve())
    if file.suffix not in (".pt", ".yaml", ".yml"):
        raise CheckpointError(f"model={model} is neither a file nor a model name. Use a .pt or .yaml path, or digits.")
    if file.parent == Path() and file.suffix != ".pt":
        return model
    return _download(model) if file.parent == Path() else _missing(model)


def _download(name: str) -> str:
    """Return the path of a checkpoint that Ultralytics publishes, downloaded where it is missing."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        _missing(name)
    try:
        file = Path(attempt_download_asset(name))
    except Exception as error:
        raise CheckpointError(f"model={name} could not be downloaded: {error}. Pass a path of a .pt file.") from error
    if not file.is_file():
        raise CheckpointError(f"model={name} could not be downloaded (no network?). Pass a path of a .pt file.")
    return str(file.resolve())


def _imgsz(network: "YOLO") -> int:
    """Return the longer side that a network was trained with."""
    imgsz = network.overrides.get("imgsz") or (224 if network.task == "classify" else 640)
    return int(max(imgsz) if isinstance(imgsz, list | tuple) else imgsz)


def _missing(model: str) -> str:
    raise CheckpointError(f"model={model} does not exist. Check the path, or use digits, the shipped checkpoint.")


def _yaml(network: "YOLO") -> dict[str, Any]:
    """Return the model yaml of a loaded network."""
    yaml = getattr(network.model, "yaml", None)
    if not isinstance(yaml, dict):
        raise TypeError("it is not a YOLO model with a yaml")
    return yaml
