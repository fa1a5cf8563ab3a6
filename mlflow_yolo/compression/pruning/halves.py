"""Blocks that split one convolution's output, as two convolutions and back: pruning cannot look through the split.

C2f, C3k2 and C2PSA cut the output of `cv1` in two. Torch-Pruning follows channels from layer to layer and loses them
there (its index runs out of bounds, Torch-Pruning #147). Taken apart, `cv0` and `cv1` are ordinary layers; with equal
widths they are joined to the stock class again. Both ways only copy numbers, so outputs stay the same to the last bit.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, C2f, C3k2, Conv

JOINED = (C2f, C3k2, C2PSA)
"""Classes that are taken apart; a subclass may do something else with the halves."""

_PLACE = ("i", "f", "type", "np")
"""What Ultralytics attaches to a block to run it: index, inputs, name, number of parameters."""


class Halved(nn.Module):
    """A C2f, C3k2 or C2PSA block whose first convolution is two, `cv0` and `cv1`, one for each half of its output."""

    def __init__(self, block: C2f | C2PSA) -> None:
        """Take over the layers of a block."""
        super().__init__()
        self.cv0 = rows_of(block.cv1, slice(None, block.c))
        self.cv1 = rows_of(block.cv1, slice(block.c, None))
        self.m: Any = block.m
        self.cv2: Any = block.cv2
        self._block = (block,)  # in a tuple, so that its layers are not registered a second time
        for name in _PLACE:
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))
        self.training = block.training

    def forward(self, x: Tensor) -> Tensor:
        """Return what the joined block returns."""
        outputs: list[Tensor] = [self.cv0(x), self.cv1(x)]
        if isinstance(self._block[0], C2PSA):
            outputs[1] = self.m(outputs[1])
        else:
            for part in self.m:
                outputs.append(part(outputs[-1]))
        output: Tensor = self.cv2(torch.cat(outputs, 1))
        return output

    def joined(self) -> nn.Module:
        """Return the stock block with the layers as they are now; both halves must be equally wide."""
        block: nn.Module = self._block[0]
        width = self.cv0.conv.out_channels
        assert self.cv1.conv.out_channels == width, f"halves of {width} and {self.cv1.conv.out_channels} channels"
        block.cv1, block.c = stack_rows(self.cv0, self.cv1), width
        return block.train(self.training)


def halve_blocks(network: nn.Module) -> None:
    """Replace every C2f, C3k2 and C2PSA of a network by its `Halved`."""
    for parent, name, block in list(_children(network)):
        if type(block) in JOINED:
            setattr(parent, name, Halved(block))


def join_blocks(network: nn.Module) -> None:
    """Put the stock blocks back."""
    for parent, name, block in list(_children(network)):
        if isinstance(block, Halved):
            setattr(parent, name, block.joined())


def rows_of(conv: Conv, rows: slice) -> Conv:
    """Return a convolution and batch norm that make some of the output channels of another."""
    part = _copy(conv)
    for layer in (part.conv, part.bn):
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.ndim:  # the number of batches tracked is no channel's
                tensor.data = tensor.data[rows].clone()
            tensor.grad = None
    _set_width(part)
    return part


def stack_rows(first: Conv, second: Conv) -> Conv:
    """Return a convolution and batch norm that make the output channels of two others, one after the other."""
    both = _copy(first)
    for name in ("conv", "bn"):
        layer, other = getattr(both, name), getattr(second, name)
        ours, theirs = [*layer.parameters(), *layer.buffers()], [*other.parameters(), *other.buffers()]
        for tensor, tail in zip(ours, theirs, strict=True):
            if tensor.ndim:
                tensor.data = torch.cat([tensor.data, tail.data])
            tensor.grad = None
    _set_width(both)
    return both


def _copy(conv: Conv) -> Conv:
    """Return a copy with the same activation, which all layers of a network share."""
    return deepcopy(conv, {id(conv.act): conv.act})


def _set_width(conv: Conv) -> None:
    conv.conv.out_channels = conv.bn.num_features = len(conv.conv.weight)


def _children(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in network.modules():
        for name, child in parent.named_children():
            yield parent, name, child
