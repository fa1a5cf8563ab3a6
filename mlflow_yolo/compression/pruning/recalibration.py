"""The statistics of batch norms, counted anew: pruning changes what reaches them."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import nn
from torch.optim.swa_utils import update_bn

from mlflow_yolo.exceptions import ArgumentError


def recalibrate(network: nn.Module, batches: Iterable[Mapping[str, Any]]) -> None:
    """Set the running mean and variance of every batch norm to the average over batches; weights stay as they are.

    Args:
        network: Any model that takes images.
        batches: Training batches of equal size, `img` float in [0, 1]; each counts the same.

    Raises:
        ArgumentError: There is no batch.

    Source: the second pass of stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407); for pruned
        networks Li et al. 2020, EagleEye, arXiv 2007.02491.
    """
    update_bn((batch["img"] for batch in some(batches)), network, device=next(network.parameters()).device)


def some(batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Return the batches after checking that there is one: an average over none would be no number.

    Raises:
        ArgumentError: There is none.
    """
    found = iter(batches)
    first = next(found, None)
    if first is None:
        raise ArgumentError("there are no training batches to measure on. Use a training split with images.")
    return chain([first], found)
