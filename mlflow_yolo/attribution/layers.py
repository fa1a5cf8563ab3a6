"""At which block a target is best seen, and which blocks there are.

The block before the head, which most recipes take, sees only the coarsest detection level: small and medium objects
give it no gradient at all. A level's own input to the head sees five cells around the anchor and nothing else. The
backbone's stage of the level's stride sees everything at the level's resolution, so it is the default.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_yolo.attribution.capture import at_rest, run_single
from mlflow_yolo.exceptions import ArgumentError


@dataclass(frozen=True)
class Layers:
    """The blocks of a model that a map can be made at.

    Attributes:
        strides: By block, input pixels a cell of its output; 0 for what is no grid (the head).
        by_level: The default block of every detection level, finest first; of a classifier the one before the head.
        upstream: By level, the blocks that its predictions are made from.
    """

    strides: tuple[int, ...]
    by_level: tuple[int, ...]
    upstream: tuple[frozenset[int], ...] = ()

    def check(self, block: int) -> int:
        """Return `block`, counted from the end where it is negative.

        Raises:
            ArgumentError: There is no such block, or its output is no grid.
        """
        last = len(self.strides) - 1
        index = block if block >= 0 else len(self.strides) + block
        if not 0 <= index <= last or not self.strides[index]:
            raise ArgumentError(
                f"block={block} has no map: the model's blocks with a grid are 0 to {last - 1}. "
                f"Use for example block={self.by_level[0]}."
            )
        return index

    def check_sees_all(self, block: int) -> int:
        """Return `block`, as `check` does, if predictions of every level can be explained at it.

        Raises:
            ArgumentError: There is no such block, or the predictions of a level are not made from it.
        """
        index = self.check(block)
        blind = [level for level, blocks in enumerate(self.upstream) if index not in blocks]
        if blind:
            strides = " and ".join(str(self.strides[self.by_level[level]]) for level in blind)
            raise ArgumentError(
                f"block={block} has no influence on predictions of stride {strides}: there is no gradient to map. "
                f"Use block={self.by_level[blind[0]]}, or leave it out for the block of each level."
            )
        return index

    def deepest_with(self, cells: int, imgsz: tuple[int, int]) -> int:
        """Return the deepest block whose grid has so many cells for an input of (height, width) pixels, or block 0."""
        height, width = imgsz
        fitting = [
            i for i, stride in enumerate(self.strides) if stride and -(-height // stride) * -(-width // stride) >= cells
        ]
        return fitting[-1] if fitting else 0


def read_layers(network: nn.Module) -> Layers:
    """Return the blocks of an Ultralytics model; a small picture of zeros goes through it once.

    Args:
        network: The model, on any device; left as it is.

    Raises:
        ArgumentError: A model without blocks, such as an exported one.
    """
    blocks: Any = getattr(network, "model", None)
    if not isinstance(blocks, nn.Sequential):
        raise ArgumentError(f"{type(network).__name__} has no blocks to look into. Use a .pt checkpoint.")
    sizes: list[int] = [0] * len(blocks)
    # Ultralytics gives classifiers, which take any size, a stride of 1.
    side = 4 * max(32, *(int(stride) for stride in getattr(network, "stride", ())))
    handles = [
        # YOLO blocks return one tensor; a head returns a tuple or a dictionary.
        block.register_forward_hook(lambda module, inputs, output, i=i: sizes.__setitem__(i, _side_of(output)))
        for i, block in enumerate(blocks)
    ]
    first = next(network.parameters())
    try:
        with torch.inference_mode(False), torch.no_grad(), at_rest(network):
            run_single(network, first.new_zeros(1, _channels(network, first), side, side))
    finally:
        for handle in handles:
            handle.remove()
    strides = tuple(side // size if size else 0 for size in sizes)
    levels = [int(stride) for stride in getattr(blocks[-1], "stride", ())]
    last = max((i for i, stride in enumerate(strides) if stride), default=0)
    inputs = [_sources(block, i) for i, block in enumerate(blocks)]
    upstream = tuple(_upstream(inputs, source) for source in inputs[-1])
    return Layers(strides, tuple(stage_of(strides, level) for level in levels) or (last,), upstream)


def _sources(block: Any, index: int) -> list[int]:
    """Return the blocks that a block takes its input from, of which a yaml counts some backwards."""
    given: int | list[int] = block.f
    return [one if one >= 0 else index + one for one in ([given] if isinstance(given, int) else given)]


def _upstream(inputs: list[list[int]], block: int) -> frozenset[int]:
    """Return a block and all that it is made from; -1 stands for the picture."""
    seen, waiting = set[int](), [block]
    while waiting:
        here = waiting.pop()
        if here >= 0 and here not in seen:
            seen.add(here)
            waiting += inputs[here]
    return frozenset(seen)


def stage_of(strides: tuple[int, ...], stride: int) -> int:
    """Return the block after the one that first reaches a stride: the stage that works at this resolution."""
    first = strides.index(stride)
    return first + 1 if first + 1 < len(strides) and strides[first + 1] == stride else first


def _side_of(output: Any) -> int:
    return int(output.shape[-1]) if isinstance(output, Tensor) and output.ndim == 4 else 0


def _channels(network: nn.Module, first: Tensor) -> int:
    yaml = getattr(network, "yaml", None) or {}
    return int(yaml.get("channels", first.shape[1] if first.ndim == 4 else 3))
