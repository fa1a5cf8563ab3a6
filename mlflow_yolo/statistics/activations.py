"""Activation statistics of blocks, taken by forward hooks while a `with` is open.

Everything is computed inside the hook. A kept reference to a pre-activation would be overwritten: models loaded from a
checkpoint have `SiLU(inplace=True)`.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlflow_yolo.blocks import COPIES
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.saturation import pre_activations
from mlflow_yolo.statistics.vectors import Floats, to_host

_STRIDE = 4
_SMALL_SIDE = 32
"""Maps at least this high and wide are thresholded on every fourth row and column: comparing all elements costs ten
times what mean and norm cost, and neighbours agree."""


def channel_sums(output: Tensor) -> Tensor:
    """Return (2, C) sum and sum of squares per channel, float32, on the output's device.

    Args:
        output: (B, C, ...) of any floating point type.
    """
    maps = output.detach()
    maps = maps.unsqueeze(-1) if maps.ndim == 2 else maps
    inner = tuple(range(2, maps.ndim))
    sums = maps.sum(inner, dtype=torch.float32)
    # The norm is 24 times faster on a CPU than var_mean (torch 2.15); per image, so that float32 is enough.
    norms = torch.linalg.vector_norm(maps, 2, inner, dtype=torch.float32)
    return torch.stack([sums.sum(0), norms.square().sum(0)])


def off_count(pre_activation: Tensor, threshold: float) -> tuple[Tensor, int]:
    """Return how many elements are at or below the threshold (a scalar on the device), and among how many.

    Args:
        pre_activation: (B, C, H, W) or any other shape; large maps are subsampled.
        threshold: See `off_threshold`.
    """
    z = pre_activation.detach()
    if z.ndim == 4 and min(z.shape[-2:]) >= _SMALL_SIDE:
        z = z[..., _STRIDE // 2 :: _STRIDE, _STRIDE // 2 :: _STRIDE]
    return (z <= threshold).sum().float(), z.numel()


def channel_statistics(sums: Floats, n_elements: int) -> dict[str, float]:
    """Return a block's statistics from its channels' sums.

    Args:
        sums: (2, C) of `channel_sums`, added over batches.
        n_elements: Number of elements per channel, over batches, > 0.

    Returns:
        `mean` and `std` over all elements; `channel_variance` = Var_c(mean over images and pixels), how different the
        channels are; `intra_channel_variance` = mean_c(Var over images and pixels). Variances are population ones, so
        std^2 is the sum of the two.
    """
    mean = sums[0] / n_elements
    between, within = float(mean.var()), float(np.maximum(sums[1] / n_elements - mean**2, 0.0).mean())
    return {
        "mean": float(mean.mean()),
        "std": float(np.sqrt(between + within)),
        "channel_variance": between,
        "intra_channel_variance": within,
    }


class ActivationProbe:
    """Measures the outputs and pre-activations of blocks in the first forward passes inside a `with`.

    The model's mode, gradients and outputs are left alone; it works in inference mode, under autocast and in half
    precision. A failure while measuring does not reach the model: it ends the measuring and is raised by `result`.
    """

    def __init__(
        self, blocks: Sequence[tuple[int, nn.Module]], *, max_batches: int = 4, skip: Collection[str] = COPIES
    ) -> None:
        """Attach nothing yet.

        Args:
            blocks: Index and module of every block, in the order in which they run.
            max_batches: Forward passes to measure; later ones pass through.
            skip: Class names of blocks to leave out.
        """
        self._blocks = [(index, module) for index, module in blocks if type(module).__name__ not in skip]
        self._max_batches = max_batches
        self._n_batches = 0
        self._handles: list[RemovableHandle] = []
        self._outputs: dict[int, list[tuple[Tensor, int]]] = {}
        self._off: dict[int, list[tuple[Tensor, int, int]]] = {}
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        """Attach the hooks."""
        if self._blocks:
            self._handles.append(self._blocks[0][1].register_forward_pre_hook(self._count))
        for block, module in self._blocks:
            self._attach(module, partial(self._measure_output, block))
            for inner, threshold in pre_activations(module):
                self._attach(inner, partial(self._measure_off, block, threshold))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def n_batches(self) -> int:
        """Number of forward passes measured so far."""
        return min(self._n_batches, self._max_batches)

    def result(self) -> dict[int, dict[str, float]]:
        """Return the statistics by block index and name, with one copy from the device.

        Blocks whose output is no tensor (heads) have `off_fraction` only; blocks without a pre-activation whose
        threshold is known lack `off_fraction`. Empty before the first forward pass.

        Raises:
            WorkError: Measuring failed in a forward pass.
        """
        if self._failure is not None:
            raise WorkError(
                f"activation statistics failed: {self._failure!r}. Turn them off or report the model's type."
            ) from self._failure
        sums = to_host([tensor for entries in self._outputs.values() for tensor, _ in entries])
        counts = to_host([tensor for entries in self._off.values() for tensor, _, _ in entries])
        result: dict[int, dict[str, float]] = {}
        for block, entries in self._outputs.items():
            own, sums = sums[: len(entries)], sums[len(entries) :]
            result[block] = channel_statistics(np.sum(own, axis=0), sum(n for _, n in entries))
        for block, off in self._off.items():
            found, counts = counts[: len(off)], counts[len(off) :]
            # Subsampled maps stand for all their elements, so that stride does not change the weight of a layer.
            n_off = sum(float(c) / n_seen * n for c, (_, n_seen, n) in zip(found, off, strict=True))
            result.setdefault(block, {})["off_fraction"] = n_off / sum(n for _, _, n in off)
        return dict(sorted(result.items()))

    def _count(self, module: nn.Module, inputs: Any) -> None:
        self._n_batches += 1

    def _attach(self, module: nn.Module, measure: Callable[[Tensor], None]) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self._n_batches > self._max_batches or self._failure is not None:
                return
            if not (isinstance(output, Tensor) and output.is_floating_point() and output.ndim >= 2 and output.numel()):
                return
            try:
                with torch.no_grad():
                    measure(output)
            except Exception as error:  # raised by `result`; here it would end the caller's validation
                self._failure = error

        self._handles.append(module.register_forward_hook(hook))

    def _measure_output(self, block: int, output: Tensor) -> None:
        entry = (channel_sums(output), output.numel() // output.shape[1])
        self._outputs.setdefault(block, []).append(entry)

    def _measure_off(self, block: int, threshold: float, z: Tensor) -> None:
        count, n_seen = off_count(z, threshold)
        self._off.setdefault(block, []).append((count, n_seen, z.numel()))
