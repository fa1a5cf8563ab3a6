"""How many of a head's predictions are saturated: their best class has a confidence over 0.95.

The last convolutions of a head have no activation function: dead channels and regions of an activation say nothing
there. What can saturate is the sigmoid, or for a classifier the softmax, that makes confidences of its class logits.
"""

from typing import Any

import torch
from torch import Tensor

from mlflow_yolo.statistics.vectors import to_host

CONFIDENT = 0.95


def best_confidences(output: Any) -> Tensor | None:
    """Return (B, A) the confidence of the best class of each prediction, in [0, 1]; None for what is no head's output.

    Args:
        output: Class logits (B, C, A) under `scores` in a dictionary, which may be the last part of a tuple or lie in
            another one under `one2many` or else `one2one`; or a classifier's probabilities and logits, both (B, C).
    """
    if isinstance(output, tuple | list) and output:
        if len(output) == 2 and all(isinstance(part, Tensor) and part.ndim == 2 for part in output):
            probabilities: Tensor = output[0]
            return probabilities.detach().amax(1, keepdim=True)
        return best_confidences(output[-1]) if isinstance(output[-1], dict) else None
    if not isinstance(output, dict):
        return None
    if isinstance(scores := output.get("scores"), Tensor) and scores.ndim == 3 and scores.numel():
        return scores.detach().amax(1).float().sigmoid()
    return best_confidences(output.get("one2many") or output.get("one2one"))


class HeadConfidences:
    """Counts the confident predictions of heads over forward passes."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._counts: dict[int, Tensor] = {}

    def see(self, number: int, output: Any) -> None:
        """Count the predictions in an output of the block with that number; nothing for what is no head's output."""
        best = best_confidences(output)
        if best is not None:
            n_confident = (best > CONFIDENT).sum()
            counts = torch.stack([n_confident, torch.full_like(n_confident, best.numel())])
            known = self._counts.get(number)
            self._counts[number] = counts if known is None else known + counts

    def result(self) -> dict[int, dict[str, float]]:
        """Return the `confident_fraction` of every head's predictions by the block's number, with one copy."""
        host = zip(self._counts, to_host(list(self._counts.values())), strict=True)
        return {number: {"confident_fraction": float(counts[0] / counts[1])} for number, counts in host}
