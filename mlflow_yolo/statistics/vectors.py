"""Reductions of a block's elements to one number a block, and many small tensors in one copy to the host.

A block's tensors are first put one after the other into a flat vector, because reducing 255 small tensors costs more in
calls than in arithmetic. On a CPU one block at a time is reduced, so that it is still in the cache for the next
reduction; on a GPU all blocks are, because there every call costs the launch of a kernel.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Reductions(Protocol):
    """Reduces flat vectors of one or several blocks; no method waits for the device or changes its argument.

    Each returns one number a block: a scalar tensor for one block, (B,) for several.
    """

    def total(self, vector: Tensor) -> Tensor:
        """Return the sum of the elements."""

    def l2(self, vector: Tensor) -> Tensor:
        """Return the Euclidean norm; NaN or infinite if an element is."""

    def l1_and_max(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the magnitudes and the largest one; both NaN or infinite if an element is."""

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner product."""

    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the Euclidean norm of the difference."""


class OneBlock:
    """The reductions of a single block, with a scratch vector of its length instead of new memory at every call."""

    def __init__(self, scratch: Tensor) -> None:
        """Keep the scratch vector (N,); blocks that are reduced one after the other may share it."""
        self._scratch = scratch

    def total(self, vector: Tensor) -> Tensor:
        """Return the sum, a scalar."""
        return vector.sum()

    def l2(self, vector: Tensor) -> Tensor:
        """Return the Euclidean norm, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(vector)
        return norm

    def l1_and_max(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return two scalars; vector_norm with ord 1 and inf takes 8 and 20 times as long on a CPU (torch 2.15)."""
        magnitudes = torch.abs(vector, out=self._scratch)
        return magnitudes.sum(), magnitudes.amax()

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner product, a scalar."""
        return torch.dot(left, right)

    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the norm of the difference, a scalar."""
        return self.l2(torch.sub(left, right, out=self._scratch))


class ManyBlocks:
    """The reductions of several blocks that follow one another in a vector, with a few kernels for all of them."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        """Keep the number of elements of each block, all > 0."""
        self._sizes = list(sizes)
        self._lengths = torch.tensor(self._sizes, device=device)

    def total(self, vector: Tensor) -> Tensor:
        """Return the sums (B,)."""
        return torch.segment_reduce(vector, "sum", lengths=self._lengths, unsafe=True)  # a check would wait

    def l2(self, vector: Tensor) -> Tensor:
        """Return the Euclidean norms (B,)."""
        return torch.stack(torch._foreach_norm(vector.split(self._sizes), 2))

    def l1_and_max(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors (B,)."""
        blocks = vector.split(self._sizes)
        return torch.stack(torch._foreach_norm(blocks, 1)), torch.stack(torch._foreach_norm(blocks, float("inf")))

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner products (B,)."""
        return self.total(left * right)

    def distance(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the norms of the difference (B,)."""
        return self.l2(left - right)


def to_host(tensors: Sequence[Tensor]) -> list[Floats]:
    """Return the tensors as float64 arrays of the same shapes, with a single copy from the device.

    Args:
        tensors: Floating point tensors of one device; empty gives an empty list.
    """
    if not tensors:
        return []
    values = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().double().numpy()
    bounds = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    return [part.reshape(t.shape) for part, t in zip(np.split(values, bounds), tensors, strict=True)]
