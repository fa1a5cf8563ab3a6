"""How much each channel of a group is worth, by Torch-Pruning's measures over all layers that make or read it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import BaseModel

from mlflow_yolo.compression.pruning.groups import Group
from mlflow_yolo.compression.pruning.recalibration import some

_MEASURES: Mapping[str, Callable[[], Any]] = {
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "bn": tp.importance.BNScaleImportance,
}


def channel_importance(group: Group, kind: str) -> Tensor:
    """Return (n_channels,) what each channel is worth, finite and >= 0; the mean over a group is 1.

    `l1`, `l2`: sum of |w|^p of the weights that make the channel and of those that read it, averaged over the layers
    of the group (Fang et al. 2023, DepGraph, arXiv 2301.12900). `taylor`: sum of |w dL/dw| in their place (Molchanov
    et al. 2019, arXiv 1906.10771). `bn`: |scale| of the batch norms (Liu et al. 2017, Network Slimming, arXiv
    1708.06519); a group without any falls back to `l2`.

    Args:
        group: From `find_groups`.
        kind: `l1`, `l2`, `taylor` (gradients must be there: `loss_gradients`) or `bn`.
    """
    found = _MEASURES[kind]()(group.traced)
    if found is None:
        found = _MEASURES["l2"]()(group.traced)
    return torch.nan_to_num(found.detach().float().cpu(), nan=0.0)  # all gradients 0: 0 / 0


@contextmanager
def loss_gradients(network: BaseModel, batches: Iterable[Mapping[str, Any]]) -> Iterator[None]:
    """Give every weight the gradient of the summed training loss over batches; afterwards nothing is left of it.

    Args:
        network: An Ultralytics model, halved or not, with its training arguments as a mapping.
        batches: Training batches, `img` float in [0, 1].

    Raises:
        ArgumentError: There is no batch.
    """
    arguments, buffers = network.args, {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        network.args, network.criterion = get_cfg(overrides=dict(arguments)), None
        network.train()
        for batch in some(batches):
            network.loss(batch)[0].sum().backward()
        for parameter in network.parameters():
            if parameter.grad is None:  # a branch that took no part
                parameter.grad = torch.zeros_like(parameter)
        yield
    finally:
        network.eval().zero_grad(set_to_none=True)
        network.args, network.criterion = arguments, None
        for name, buffer in network.named_buffers():  # batch norm's statistics have moved
            buffer.copy_(buffers[name])
