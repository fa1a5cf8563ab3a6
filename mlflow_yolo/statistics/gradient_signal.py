"""What the gradients of a few batches say about each block: their size for its weights, and how much is noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import Parameter

from mlflow_yolo.statistics.gradient_noise import noise_statistics
from mlflow_yolo.statistics.vectors import to_host


@dataclass(frozen=True)
class BlockSignal:
    """The gradient of one block over T batches.

    Attributes:
        relative: ||gbar|| / ||w||, the norm of the mean gradient against that of the block's weights; infinite for
            weights that are all 0, NaN where the gradient is 0 as well.
        gsnr: ||gbar||^2 / (noise / T), see `gradient_noise`; near 1 when there is nothing but noise, NaN for one batch.
    """

    relative: float
    gsnr: float


class GradientSignal:
    """Adds up the gradients of blocks, batch by batch; holds one copy of the weights' size.

    Gradients are taken as they stand: the caller gives them neither scaled for half precision nor clipped.

    Source: the relative norm from Lee et al., "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (2023,
        arXiv 2210.11466), section 4, there per tensor and batch; here per block, of the mean over the batches.
    """

    def __init__(self, blocks: Mapping[int, Sequence[Parameter]]) -> None:
        """Hold nothing yet.

        Args:
            blocks: The trainable parameters of every block by its index; a block without any is left out.
        """
        self._blocks = {index: list(parameters) for index, parameters in blocks.items() if parameters}
        self._sums: dict[int, list[Tensor | None]] = {index: [None] * len(p) for index, p in self._blocks.items()}
        self._squares: list[list[Tensor]] = []

    def add(self) -> None:
        """Take the gradients that the parameters carry now; a parameter without one took no part."""
        squares = []
        for index, parameters in self._blocks.items():
            square = parameters[0].new_zeros(())
            for position, parameter in enumerate(parameters):
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.detach()
                total = self._sums[index][position]
                self._sums[index][position] = gradient.clone() if total is None else total.add_(gradient)
                square = square + gradient.float().square().sum()
            squares.append(square)
        self._squares.append(squares)

    def blocks(self) -> dict[int, BlockSignal]:
        """Return what the batches so far say, by block index; empty before the first."""
        if not self._squares or not self._blocks:
            return {}
        n_steps = len(self._squares)
        squares = np.stack(to_host([square for squares in self._squares for square in squares])).reshape(n_steps, -1)
        sums = np.array([_norm([s for s in self._sums[index] if s is not None]) for index in self._blocks])
        weights = np.array([_norm([p.detach() for p in parameters]) for parameters in self._blocks.values()])
        gsnr = noise_statistics(
            {"gradient_sum_l2": sums, "gradient_square_mean": squares.mean(axis=0), "n_steps": np.array(n_steps)}
        )["gsnr"]
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = sums / n_steps / weights
        return {index: BlockSignal(float(relative[i]), float(gsnr[i])) for i, index in enumerate(self._blocks)}


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all elements together; 0 for none."""
    return float(np.sqrt(sum(float(square) for square in to_host([t.float().square().sum() for t in tensors]))))
