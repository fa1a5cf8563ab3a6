"""Which channels must go together, found by following a network's graph with Torch-Pruning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from ultralytics.nn.modules.block import DFL, Attention, Proto, Proto26
from ultralytics.nn.modules.head import Classify, Detect

from mlflow_yolo.compression.pruning.halves import Halved
from mlflow_yolo.compression.pruning.outputs import raw_outputs

WRITERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Layers that make channels; a batch norm only passes them on."""

_TRACED_SIZE = 64
"""Pixels. Only the graph is wanted, and it is the same at every size."""


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of several layers that stand and fall together: one output channel of each, and what reads it.

    Attributes:
        name: The layer that comes first: `model.4.cv0`.
        n_channels: How many there are.
        writers: (layer, convolution) whose output channels these are; index i of each is channel i of the group.
        traced: Torch-Pruning's group over all of them.
        graph: The graph it belongs to.
    """

    name: str
    n_channels: int
    writers: tuple[tuple[str, nn.Module], ...]
    traced: Any
    graph: tp.DependencyGraph

    def remove(self, channels: Sequence[int]) -> None:
        """Take these channels out of every layer of the group."""
        if channels:
            self._traced_for(channels).prune()

    def readers(self, channels: Sequence[int]) -> Iterator[tuple[nn.Module, list[int]]]:
        """Yield the layers that read these channels, each with the indices they have among its inputs."""
        written = {module for _, module in self.writers}  # depthwise convolutions read and write them
        for dep, indices in self._traced_for(channels) if channels else ():
            layer = dep.target.module
            if isinstance(layer, WRITERS) and layer not in written:
                yield layer, list(indices)

    def _traced_for(self, channels: Sequence[int]) -> Any:
        first = self.traced[0].dep
        return self.graph.get_pruning_group(first.target.module, first.handler, list(channels))


def find_groups(network: nn.Module) -> tuple[Group, ...]:
    """Return the groups of channels of a halved network that may be removed, in the order of their first layers.

    Not among them: what is put out (boxes, scores, mask coefficients, prototypes, classes), attention (its query, key
    and value are cut by fixed numbers), everything that is added to attention's output, and a half whose other half
    may not be touched, since the two must stay equally wide.
    """
    graph = tp.DependencyGraph()
    first = next(parameter for parameter in network.parameters() if parameter.ndim == 4)
    image = torch.zeros(1, first.shape[1], _TRACED_SIZE, _TRACED_SIZE, device=first.device)
    with torch.enable_grad():
        graph.build_dependency(network.eval(), image, forward_fn=all_outputs)
    names = {module: layer_name(name) for name, module in network.named_modules()}
    traced = graph.get_all_groups(ignored_layers=list(_fixed(network)))
    groups = {group.name: group for group in (_group(one, graph, names) for one in traced)}
    for name, block in network.named_modules():
        halves = {f"{name}.cv0", f"{name}.cv1"}
        if isinstance(block, Halved) and not halves <= groups.keys():
            groups = {key: group for key, group in groups.items() if key not in halves}
    order = {name: number for number, name in enumerate(names.values())}
    return tuple(sorted(groups.values(), key=lambda group: order[group.name]))


def all_outputs(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the raw outputs; of a YOLO26 segment head also the semantic ones, which only training asks for."""
    prototypes = [module for module in network.modules() if isinstance(module, Proto26)]
    try:
        for module in prototypes:
            module.training = True
        return list(raw_outputs(network, images).values())
    finally:
        for module in prototypes:
            module.training = False


def _fixed(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers whose output channels have a meaning or a fixed number."""
    for module in network.modules():
        if isinstance(module, (Attention, DFL)):
            yield from module.modules()
        elif isinstance(module, Detect):
            for name, branches in module.named_children():
                if name.removeprefix("one2one_") in ("cv2", "cv3", "cv4"):
                    yield from (branch[-1] for branch in branches)
        elif isinstance(module, Proto):
            yield from module.cv3.modules()
            if getattr(module, "semseg", None) is not None:
                yield module.semseg[-1]
        elif isinstance(module, Classify):
            yield module.linear


def _group(traced: Any, graph: tp.DependencyGraph, names: dict[nn.Module, str]) -> Group:
    cut = {dep.target.module for dep, _ in traced if graph.is_out_channel_pruning_fn(dep.handler)}
    writers = tuple((name, module) for module, name in names.items() if module in cut and isinstance(module, WRITERS))
    return Group(writers[0][0], len(traced[0].idxs), writers, traced, graph)


def layer_name(name: str) -> str:
    """Return the name of the layer that a convolution is the linear part of: `model.0` for `model.0.conv`."""
    return name.removesuffix(".conv")
