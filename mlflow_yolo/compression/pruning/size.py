"""What a network costs: parameters, multiply-adds, file size, and the width of every layer."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import BaseModel

from mlflow_yolo.blocks import block_of
from mlflow_yolo.compression.pruning.groups import WRITERS, layer_name


@dataclass(frozen=True)
class Size:
    """What a network costs.

    Attributes:
        parameters: Number of parameters as it is trained, both branches of a YOLO26 head included.
        macs: Multiply-adds for one image as it is deployed: batch norms fused, one branch.
        widths: Output channels by layer, in the network's order.
    """

    parameters: int
    macs: int
    widths: dict[str, int]


@dataclass(frozen=True)
class Width:
    """Output channels of one layer before and after.

    Attributes:
        block: Index of its block.
        layer: `model.4.m.0.cv1`.
        before: Output channels of the unpruned layer.
        after: Output channels of the pruned one.
    """

    block: int
    layer: str
    before: int
    after: int


def measure_size(network: BaseModel, imgsz: int) -> Size:
    """Return what a stock network costs at an input of imgsz x imgsz pixels."""
    return Size(count_parameters(network), count_macs(network, imgsz), layer_widths(network))


def count_parameters(network: BaseModel) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: BaseModel, imgsz: int) -> int:
    """Return the multiply-adds of convolutions and matrix products for one image as the network is deployed."""
    deployed = deepcopy(network).eval().fuse(verbose=False)
    first = next(deployed.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        deployed(torch.zeros(1, first.shape[1], imgsz, imgsz, device=first.device))
    return int(counter.get_total_flops()) // 2


def layer_widths(network: BaseModel) -> dict[str, int]:
    """Return the output channels of every convolution and linear layer, in the network's order."""
    return {
        layer_name(name): module.weight.shape[1 if isinstance(module, nn.ConvTranspose2d) else 0]
        for name, module in network.named_modules()
        if isinstance(module, WRITERS)
    }


def compare_widths(before: Size, after: Size) -> tuple[Width, ...]:
    """Return the widths of every layer side by side."""
    return tuple(
        Width(block_of(f"{layer}.") or 0, layer, width, after.widths[layer]) for layer, width in before.widths.items()
    )


def removed_share(before: Size, after: Size) -> float:
    """Return the share of all output channels that is gone."""
    return 1 - sum(after.widths.values()) / sum(before.widths.values())
