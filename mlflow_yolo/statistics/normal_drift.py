"""How far data have moved from what the batch norms of a model were trained on, block by block and without labels.

Every batch norm keeps the mean and variance of its input. Both are compared with those of the data at hand as normal
distributions. A shift of one batch norm reaches all later ones; here each hands on what it normalised with the
statistics of the batch itself, so that a block shows what it adds and not what it inherits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mlflow_yolo.statistics.vectors import Floats, to_host


def normal_divergence(mean: Floats, variance: Floats, kept_mean: Floats, kept_variance: Floats) -> Floats:
    """Return KL(N(mean, variance) || N(kept_mean, kept_variance)) per channel, in nats; all arguments (C,).

    0 where both agree; infinite where a channel has become constant, or was.

    Source: the closed form, 1/2 (v/k + (m - m_k)^2/k - 1 - ln(v/k)).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = variance / kept_variance
        divergence = 0.5 * (ratio + (mean - kept_mean) ** 2 / kept_variance - 1.0 - np.log(ratio))
    return np.asarray(np.where(np.isnan(divergence), np.inf, divergence), dtype=np.float64)


@dataclass
class _Moments:
    """Sums over the input of one batch norm, standardised with the statistics it keeps, so that nothing cancels."""

    norm: nn.modules.batchnorm._BatchNorm
    n: int = 0
    sums: list[Tensor] = field(default_factory=list)

    def see(self, x: Tensor) -> None:
        """Add one input, (B, C, ...)."""
        rows = x.detach().float().transpose(0, 1).flatten(1)
        assert self.norm.running_mean is not None
        standard = (rows - self.norm.running_mean[:, None]) / self._scale()[:, None]
        parts = [standard.sum(1), standard.square().sum(1)]
        self.sums = [a + b for a, b in zip(self.sums, parts, strict=True)] if self.sums else parts
        self.n += rows.shape[1]

    def divergence(self) -> float:
        """Return the mean over channels of the divergence; the norm's epsilon is part of both variances."""
        shift, square = (part / self.n for part in to_host(self.sums))
        assert self.norm.running_var is not None
        epsilon = self.norm.eps / to_host([self._scale() ** 2])[0]
        variance = np.maximum(square - shift**2, 0.0) + epsilon
        zeros = np.zeros_like(shift)
        return float(normal_divergence(shift, variance, zeros, zeros + 1.0).mean())

    def _scale(self) -> Tensor:
        assert self.norm.running_var is not None
        return torch.sqrt(self.norm.running_var.float() + self.norm.eps)


class NormalDrift:
    """Watches the batch norms of blocks while data pass through them; their buffers are left as they are."""

    def __init__(self, blocks: Sequence[tuple[int, nn.Module]]) -> None:
        """Watch nothing yet.

        Args:
            blocks: Index and module of every block; a batch norm that keeps no statistics is left out.
        """
        self._moments: dict[int, list[_Moments]] = {}
        for index, block in blocks:
            norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            kept = [_Moments(norm) for norm in norms if norm.running_mean is not None]
            if kept:
                self._moments[index] = kept

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at everything that passes, and normalise it with the statistics of its own batch."""
        with ExitStack() as stack:
            for moments in (one for of_block in self._moments.values() for one in of_block):
                stack.callback(moments.norm.register_forward_hook(_hook(moments)).remove)
            yield

    def blocks(self) -> dict[int, float]:
        """Return the mean divergence over the channels of each block that something passed through, in nats."""
        seen = {index: [one for one in of_block if one.n] for index, of_block in self._moments.items()}
        return {index: float(np.mean([one.divergence() for one in used])) for index, used in seen.items() if used}


def _hook(moments: _Moments) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    norm = moments.norm

    def see(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Count the input, and return it normalised as in training; one value a channel has no variance."""
        moments.see(inputs[0])
        if inputs[0].numel() == inputs[0].shape[1]:
            return output
        return functional.batch_norm(inputs[0], None, None, norm.weight, norm.bias, training=True, eps=norm.eps)

    return see
