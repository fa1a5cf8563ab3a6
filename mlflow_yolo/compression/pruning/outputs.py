"""What a network puts out before decoding, and how far apart two networks' outputs are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LOGITS = "logits"
"""The name of a classifier's only output."""


@dataclass(frozen=True)
class OutputChange:
    """How far two networks' outputs are apart.

    Attributes:
        output: Largest difference of a raw output: logits of boxes and classes, mask coefficients, prototypes.
        score: Largest difference of a class probability.
        n_images: Images compared.
    """

    output: float
    score: float
    n_images: int


def raw_outputs(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return what a network in evaluation mode puts out before decoding, by name: `boxes`, `scores`, `proto`, ...

    A YOLO26 head's branches have both (`one2many.boxes`); a classifier has `logits`.

    Args:
        network: A stock or a halved network.
        images: (B, C, H, W) in [0, 1].
    """
    assert not network.training, "only in evaluation mode do the features of both branches hang together"
    outputs = network(images)
    return dict(_named(outputs[1] if isinstance(outputs, tuple) else outputs, ""))


@torch.no_grad()
def output_change(first: nn.Module, second: nn.Module, batches: Iterable[Mapping[str, Any]]) -> OutputChange:
    """Return how far apart two networks with the same outputs are; 0 without images."""
    output = score = 0.0
    n_images = 0
    for batch in batches:
        n_images += len(batch["img"])
        ours, theirs = raw_outputs(first, batch["img"]), raw_outputs(second, batch["img"])
        for name, values in ours.items():
            output = max(output, _distance(values, theirs[name]))
            if name.endswith("scores"):
                score = max(score, _distance(values.sigmoid(), theirs[name].sigmoid()))
            elif name == _LOGITS:
                score = max(score, _distance(values.softmax(1), theirs[name].softmax(1)))
    return OutputChange(output, score, n_images)


def _named(outputs: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts and lists with their names; `feats` are the head's inputs and no outputs."""
    if isinstance(outputs, Tensor):
        yield name or _LOGITS, outputs
        return
    parts = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    for key, part in parts:
        if key != "feats":
            yield from _named(part, f"{name}.{key}".removeprefix("."))


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
