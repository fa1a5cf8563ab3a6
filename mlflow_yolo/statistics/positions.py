"""A few positions of a feature map, the same for every channel.

Reading every element costs ten times what the reductions over memory cost, and neighbours agree. The positions lie on a
grid that covers every image, and the grid moves with each forward pass, so that over an epoch all positions are seen.
No random number is drawn: the caller's training keeps its own sequence.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Grid:
    """Strides into a tensor's memory.

    Attributes:
        size: Of the view, (C, B, ...).
        stride: Of the view.
        down, right: How far apart its positions are on the last two axes.
        next_row, next_column: Strides of those axes in the whole maps.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    down: int
    right: int
    next_row: int
    next_column: int


def sample_positions(maps: Tensor, n_elements: int, *, turn: int = 0) -> Tensor:
    """Return (C, B, ...) a copy of some positions of every image, of the maps' type and on their device.

    Args:
        maps: (B, C, ...) of any memory layout, not empty.
        n_elements: About how many elements to take, over all channels; at least one position of each image and channel
            is taken. Maps that have no more are taken whole.
        turn: Number of the forward pass, moves the grid.
    """
    # In a hook, between two layers, each call of torch costs some 7 us for want of caches: hence one view and one copy.
    # A copy always, since an in-place activation will overwrite what was seen.
    grid = _grid(maps.shape, maps.stride(), n_elements)
    offset = (
        maps.storage_offset() + turn % grid.down * grid.next_row + turn // grid.down % grid.right * grid.next_column
    )
    return maps.detach().as_strided(grid.size, grid.stride, offset).clone(memory_format=torch.contiguous_format)


@lru_cache(maxsize=1024)
def _grid(shape: tuple[int, ...], stride: tuple[int, ...], n_elements: int) -> _Grid:
    """Return the grid for maps of a shape and memory layout."""
    n_images, n_channels, *inner = shape
    n_thinned = min(len(inner), 2)
    reduction = max(math.prod(shape) / n_elements, 1.0) ** (1 / max(n_thinned, 1))
    kept, strides = list(inner), list(stride[2:])
    apart, steps = [1] * (2 - n_thinned), [0] * (2 - n_thinned)
    for axis in range(len(inner) - n_thinned, len(inner)):
        kept[axis] = max(1, math.ceil(inner[axis] / reduction - 1e-9))
        apart.append(inner[axis] // kept[axis])
        steps.append(strides[axis])
        strides[axis] *= apart[-1]
    return _Grid((n_channels, n_images, *kept), (stride[1], stride[0], *strides), *apart, *steps)
