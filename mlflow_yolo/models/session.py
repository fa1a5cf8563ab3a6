"""A checkpoint as it would be exported, open for inference in PyTorch: the reference that variants are held against."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.models.checkpoint import load, read_model
from mlflow_yolo.variant import Variant

KIND = "pt"
"""What a checkpoint is called among the kinds of variants."""

TASKS = ("detect", "segment", "classify")

_DEFAULT_IMGSZ = 640
_MAX_DET = 300


class TorchSession:
    """A fused network on the CPU with the outputs of its ONNX export; a `runtime.session.Session`.

    Attributes:
        batch: None, since any number of images can be run at once.
    """

    batch: int | None = None

    def __init__(self, network: Any, *, threads: int | None = None) -> None:
        """Take a network over that is ready for export.

        Args:
            network: An Ultralytics model in evaluation mode with `export` set in its head.
            threads: PyTorch threads during a run; None leaves them as they are.
        """
        self._network = network
        self._threads = threads

    def run(self, images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
        """Return the network's outputs for images (N, C, H, W); PyTorch's threads are as before afterwards."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode():
                outputs = self._network(torch.from_numpy(images))
        finally:
            torch.set_num_threads(before)
        outputs = outputs if isinstance(outputs, list | tuple) else (outputs,)
        return tuple(one.float().numpy() for one in outputs)


def open_checkpoint(
    path: str | Path,
    *,
    threads: int | None = None,
    imgsz: int | tuple[int, int] | None = None,
    end2end: bool = False,
    trust: bool = False,
) -> tuple[Variant, TorchSession]:
    """Return what a checkpoint is and its network, open for inference.

    Args:
        path: See `models.checkpoint.read_model`.
        threads: PyTorch threads during a run; None leaves them as they are.
        imgsz: Size to run it at, (height, width) or the side of a square, pixels; None for that of its training.
        end2end: Take the head that needs no non-maximum suppression, where the model has one (YOLO26). Ultralytics
            itself exports and predicts with the other one unless `nms=False`.
        trust: Load a checkpoint that names foreign classes.

    Raises:
        CheckpointError: It does not exist, does not load, is not trusted, or its task is none of `TASKS`.
        ArgumentError: `imgsz` is no multiple of the stride, the model has no such head, or `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ArgumentError(f"threads={threads} cannot compute anything. Use 1 or more, or leave it out.")
    model = read_model(str(path), trust=trust)
    if model.task not in TASKS:
        raise CheckpointError(f"model={path} has task={model.task}. Variants are made for {', '.join(TASKS)}.")
    network = load(model.source).model
    stride = int(max(network.stride))
    size = _size(imgsz if imgsz is not None else _trained_imgsz(network), stride, task=model.task)
    if end2end and getattr(network.model[-1], "one2one_cv2", None) is None:
        raise ArgumentError(f"end2end=True, but model={path} has no head without suppression. Leave it out.")
    ready = _as_exported(network, size, end2end=end2end)
    names = network.names
    variant = Variant(
        kind=KIND,
        file=Path(model.source).name,
        task=model.task,
        names=tuple(str(names[index]) for index in range(len(names))),
        imgsz=size,
        stride=stride,
        channels=int(network.yaml.get("channels", 3)),
        end2end=bool(getattr(ready, "end2end", False)),
        dynamic=True,
        sha256=model.sha256,
        sources={"checkpoint": model.source, "checkpoint_sha256": model.sha256},
    )
    return variant, TorchSession(ready, threads=threads)


def _as_exported(network: Any, imgsz: tuple[int, int], *, end2end: bool) -> Any:
    """Return the network fused and set up as Ultralytics' exporter does before it traces it.

    Source: `ultralytics.engine.exporter.Exporter.__call__` (8.4), and `nn.autobackend` for the order in memory.
    """
    import torch
    from ultralytics.nn.modules import C2f, Classify, Detect

    for parameter in network.parameters():
        parameter.requires_grad = False
    if hasattr(network, "end2end"):
        network.end2end = end2end
    ready = network.eval().float().fuse(imgsz=imgsz, verbose=False)
    for module in ready.modules():
        if isinstance(module, Classify | Detect):
            module.export = True
            module.format = "onnx"
        if isinstance(module, Detect):
            module.dynamic = False
            module.max_det = min(_MAX_DET, sum(imgsz[0] // s * (imgsz[1] // s) for s in map(int, ready.stride)))
            module.shape = None
        elif isinstance(module, C2f):
            module.forward = module.forward_split
    fast = platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
    return ready.to(memory_format=torch.channels_last if fast else torch.contiguous_format)


def _trained_imgsz(network: Any) -> int | tuple[int, int]:
    """Return the size that a network was trained at, as its checkpoint says."""
    arguments = getattr(network, "args", None)
    imgsz = arguments.get("imgsz") if isinstance(arguments, dict) else getattr(arguments, "imgsz", None)
    return (int(imgsz[0]), int(imgsz[1])) if isinstance(imgsz, list | tuple) else int(imgsz or _DEFAULT_IMGSZ)


def _size(imgsz: int | tuple[int, int], stride: int, *, task: str) -> tuple[int, int]:
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    step = 1 if task == "classify" else stride
    if min(height, width) < 1 or height % step or width % step:
        raise ArgumentError(f"imgsz={height}x{width} is no multiple of the stride. Use multiples of {step}.")
    return height, width
