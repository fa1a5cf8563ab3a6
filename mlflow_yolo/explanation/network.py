"""A model that can be looked into: a checkpoint, an Ultralytics `YOLO`, or the network of a training that goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mlflow_yolo.attribution.layers import Layers, read_layers
from mlflow_yolo.attribution.outputs import BRANCHES
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.arguments import check_device
from mlflow_yolo.models.checkpoint import load, read_model
from mlflow_yolo.registry.address import is_model_uri
from mlflow_yolo.variant import is_variant

if TYPE_CHECKING:
    from ultralytics import YOLO

TASKS = ("detect", "segment", "pose", "obb", "classify")

_EXPORTED = frozenset(
    ["engine", "onnx", "torchscript", "tflite", "pb", "mlpackage", "mlmodel", "mnn", "rknn", "pte", "xml", "axm", "hef"]
)
"""Endings of what Ultralytics exports to; a folder is an export too."""
_STRIDE = 32
"""Ultralytics makes inputs a multiple of at least this, whatever the model."""


@dataclass(frozen=True, eq=False)
class ExplainedModel:
    """A network and what is needed to give it images and to read what it predicts.

    Attributes:
        network: The Ultralytics network; of a `YOLO` object or a training their own, not a copy.
        task: One of `TASKS`.
        names: Class names by id.
        imgsz: Side of the input it was trained with, pixels.
        stride: Inputs are a multiple of this, pixels.
        channels: Channels of its input.
        layers: The blocks a map can be made at.
        end_to_end: Whether its predictions come from the one-to-one head and need no suppression.
    """

    network: nn.Module
    task: str
    names: tuple[str, ...]
    imgsz: int
    stride: int
    channels: int
    layers: Layers
    end_to_end: bool

    @property
    def head(self) -> Any:
        """The last block."""
        return self.network.model[-1]  # type: ignore[index]

    @property
    def device(self) -> torch.device:
        """Where the network is and its inputs belong."""
        return next(self.network.parameters()).device

    def class_id(self, wanted: int | str) -> int:
        """Return the id of a class given by id or name.

        Raises:
            ArgumentError: The model does not have it.
        """
        if isinstance(wanted, str) and wanted in self.names:
            return self.names.index(wanted)
        if not isinstance(wanted, str) and 0 <= wanted < len(self.names):
            return int(wanted)
        known = ", ".join(self.names[:10]) + (", …" if len(self.names) > 10 else "")
        raise ArgumentError(
            f"class {wanted} does not exist: the model has {len(self.names)} ({known}). "
            f"Use a name or 0 to {len(self.names) - 1}."
        )


def open_model(model: "str | Path | YOLO | nn.Module", *, device: str = "auto", trust: bool = False) -> ExplainedModel:
    """Return a model to look into.

    Args:
        model: `digits`, a path or a name of a checkpoint or model yaml, which is scanned and loaded; or an Ultralytics
            `YOLO` object or its network, such as a trainer's `ema.ema`, which is used where and as it is and never
            fused, moved or changed.
        device: Where to load to: `auto` for the first GPU if there is one. A model that is loaded already stays.
        trust: Load a .pt file even when it names foreign classes.

    Raises:
        CheckpointError: The model does not exist, does not load, may not be loaded or is an export.
        ArgumentError: The device does not exist, or is not the one a loaded model is on.
    """
    if isinstance(model, str | Path):
        check_not_exported(str(model))
        network = load(read_model(str(model), trust=trust).source).model
        return _described(network.to(_torch_device(device)).eval())
    network = _unwrapped(getattr(model, "model", None) if _is_wrapper(model) else model)
    found = _described(network)
    if device != "auto" and torch.device(_torch_device(device)) != found.device:
        raise ArgumentError(f"device={device}, but the model is on {found.device} and stays there. Use device=auto.")
    return found


@contextmanager
def predicting_with(model: ExplainedModel, branch: str) -> Iterator[ExplainedModel]:
    """Let the predictions come from one branch of a model that has two, for as long as the `with` block lasts.

    Ultralytics predicts with the one-to-many head and suppression unless it is told `nms=False`.

    Args:
        model: The model; its choice is given back.
        branch: `one2many`, `one2one`, or `auto` for the one the model is set to.

    Raises:
        ArgumentError: The branch does not exist, or was removed when the model was fused.
    """
    if branch not in BRANCHES:
        raise ArgumentError(f"branch={branch} does not exist. Use one of {', '.join(BRANCHES)}.")
    wanted = model.end_to_end if branch == "auto" else branch == "one2one"
    if wanted == model.end_to_end:
        yield model
        return
    if wanted and getattr(model.head, "one2one_cv2", None) is None:
        raise ArgumentError("branch=one2one does not exist in this model. Use branch=auto.")
    if not wanted and model.head.cv2 is None:
        raise ArgumentError("branch=one2many was removed when the model was fused. Use branch=auto.")
    settings = vars(model.head)
    kept = {name: settings[name] for name in ("_end2end",) if name in settings}
    settings["_end2end"] = wanted
    try:
        yield ExplainedModel(**{**vars(model), "end_to_end": wanted})
    finally:
        del settings["_end2end"]
        settings.update(kept)


def _described(network: nn.Module) -> ExplainedModel:
    """Return a network with what Ultralytics wrote on it."""
    layers = read_layers(network)
    head: Any = network.model[-1]  # type: ignore[index]
    task = str(getattr(network, "task", None) or _argument(network, "task", _task_of(head)))
    if task not in TASKS:
        raise ArgumentError(f"task={task} has no maps. Use a model for one of {', '.join(TASKS)}.")
    names: Any = getattr(network, "names", None) or {}
    listed = [names[key] for key in sorted(names)] if isinstance(names, dict) else list(names)
    imgsz = _argument(network, "imgsz", 224 if task == "classify" else 640)
    stride: Any = getattr(network, "stride", torch.tensor([_STRIDE]))
    yaml: Any = getattr(network, "yaml", None) or {}
    return ExplainedModel(
        network=network,
        task=task,
        names=tuple(str(name) for name in listed),
        imgsz=int(max(imgsz) if isinstance(imgsz, list | tuple) else imgsz),
        stride=max(int(torch.as_tensor(stride).max()), _STRIDE),
        channels=int(yaml.get("channels", 3)),
        layers=layers,
        end_to_end=bool(getattr(head, "end2end", False)),
    )


def _argument(network: nn.Module, name: str, default: Any) -> Any:
    """Return one of the arguments the network was trained with: a dictionary, or a trainer's namespace."""
    arguments: Any = getattr(network, "args", None)
    found = arguments.get(name) if isinstance(arguments, dict) else getattr(arguments, name, None)
    return default if found is None else found


def _task_of(head: Any) -> str:
    known = {"Classify": "classify", "Segment": "segment", "Pose": "pose", "OBB": "obb"}
    kinds = [known[kind] for parent in type(head).__mro__ for kind in known if parent.__name__ == kind]
    return kinds[0] if kinds else "detect"


def _is_wrapper(model: Any) -> bool:
    from ultralytics.engine.model import Model

    return isinstance(model, Model)


def _unwrapped(network: Any) -> nn.Module:
    """Return the network below compilation and parallel training."""
    from ultralytics.utils.torch_utils import unwrap_model

    if isinstance(network, str | Path):
        check_not_exported(str(network))
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise CheckpointError(f"model is a {kind}, not a network. Use a YOLO object, its network or a .pt path.")
    inner: nn.Module = unwrap_model(network)
    return inner


def _torch_device(device: str) -> str:
    name = check_device(device)
    return f"cuda:{name}" if name.isdigit() else name


def check_not_exported(model: str, *, method: str | None = None) -> None:
    """Raise CheckpointError for what has been exported: gradients are gone, and mostly the blocks too.

    Args:
        model: A path or name.
        method: The method that was asked for.
    """
    path = Path(model).expanduser()
    is_registered = is_model_uri(model)
    if not is_registered and path.suffix.lower().lstrip(".") not in _EXPORTED and not path.is_dir():
        return
    source = path.with_name(path.name.removesuffix(path.suffix).split("_openvino_model")[0] + ".pt")
    remedy = f"Use {source}" if source.is_file() else "Use the .pt checkpoint it was exported from"
    needs = f", which method={method} needs" if method else ""
    rest = "and no blocks to look into"
    if is_registered or path.suffix.lower() == ".onnx" or is_variant(path):
        rest = "and only mlflow_yolo.explain(model, images, method='eigencam') does without"
    raise CheckpointError(f"model={model} is exported: it has no gradients{needs}, {rest}. {remedy}.")
