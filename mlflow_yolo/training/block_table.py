"""The table of a model's blocks: type, shapes, parameters, FLOPs and time, measured on one forward pass."""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mlflow_yolo.blocks import Block

_REPEATS = 5


@dataclass(frozen=True)
class BlockRow:
    """One block of a model, measured.

    Attributes:
        block: Its name, for example `04-C3k2`.
        part: `backbone`, `neck` or `head`.
        input_shape: Shape of its (first) input without the batch, for example `64x40x40`.
        output_shape: The same of its output; for a head the first tensor found.
        parameters: Number of parameters.
        gflops: 10^9 floating point operations a forward pass of one image, counted by ultralytics-thop (2 x MACs).
        ms: Median milliseconds of the forward pass of one image on this device.
    """

    block: str
    part: str
    input_shape: str
    output_shape: str
    parameters: int
    gflops: float
    ms: float


def block_table(network: nn.Module, blocks: tuple[Block, ...], *, imgsz: int, channels: int = 3) -> list[BlockRow]:
    """Return one row per block of a network, from forward passes of a blank image on a copy.

    Args:
        network: An Ultralytics network (`YOLO(...).model`); left as found.
        blocks: Its blocks.
        imgsz: Side of the square input, pixels.
        channels: Channels of the input.
    """
    model = copy.deepcopy(network).float().eval()
    device = next(model.parameters()).device
    inputs: dict[int, Any] = {}
    outputs: dict[int, Any] = {}

    def keep(index: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            inputs[index], outputs[index] = args, output

        return hook

    layers = list(model.model)  # type: ignore[arg-type]
    handles = [layer.register_forward_hook(keep(i)) for i, layer in enumerate(layers)]
    with torch.inference_mode():
        model(torch.zeros(1, channels, imgsz, imgsz, device=device))
        for handle in handles:
            handle.remove()
        return [_row(block, layers[block.index], inputs[block.index], outputs[block.index]) for block in blocks]


def _row(block: Block, layer: nn.Module, args: tuple[Any, ...], output: Any) -> BlockRow:
    """Return the measured row of one block."""
    return BlockRow(
        block=block.name,
        part=block.part,
        input_shape=_shape(args),
        output_shape=_shape(output),
        parameters=sum(p.numel() for p in layer.parameters()),
        gflops=_gflops(layer, args),
        ms=_milliseconds(layer, args),
    )


def _gflops(layer: nn.Module, args: tuple[Any, ...]) -> float:
    import thop

    macs = thop.profile(copy.deepcopy(layer), inputs=tuple(_copied(args)), verbose=False)[0]
    return 2.0 * float(macs) / 1e9


def _milliseconds(layer: nn.Module, args: tuple[Any, ...]) -> float:
    """Return the median time of one call; a CUDA device is waited for."""
    times = []
    for _ in range(_REPEATS):
        fresh = _copied(args)
        _wait()
        start = time.perf_counter()
        layer(*fresh)
        _wait()
        times.append((time.perf_counter() - start) * 1000.0)
    return sorted(times)[len(times) // 2]


def _copied(args: Any) -> Any:
    """Return the arguments with lists copied: a head writes into the list it is given."""
    return [list(value) if isinstance(value, list) else value for value in args]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _shape(value: Any) -> str:
    """Return the shape of the first tensor in a nested value, without the batch."""
    while not isinstance(value, torch.Tensor):
        if not value:
            return ""
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return "x".join(str(size) for size in value.shape[1:])
