"""Maps of every class of a classifier from one forward pass, without a gradient.

A YOLO classifier ends in a convolution, a mean over the image and a linear layer, so a class's logit is a sum over
places, and the map of that sum is exact: Grad-CAM, HiResCAM and CAM are the same there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mlflow_yolo.exceptions import ArgumentError

LEAST_CELLS = 16
"""With fewer places than this a map shows next to nothing."""


def class_maps(features: Tensor, weight: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return how much every place of the image adds to the logit of classes.

    Args:
        features: (B, K, h, w) what the mean is taken of.
        weight: (C, K) of the linear layer.
        classes: (B, N) classes wanted of each image; None for all of them.

    Returns:
        (B, C, h, w), or (B, N, h, w), in logits, signed: summed over places, plus the bias, it is the logit. The map
        of one class minus that of another sums to the difference of their logits, up to that of their biases.

    Source: Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, equation 2.
    """
    cells = features.shape[2] * features.shape[3]
    if classes is None:
        return torch.einsum("ck,bkhw->bchw", weight, features) / cells
    return torch.einsum("bnk,bkhw->bnhw", weight[classes], features) / cells


@dataclass(eq=False)
class ClassifierFeatures:
    """The features of the last batch that went through a classifier.

    Attributes:
        weight: (C, K) of the linear layer.
        features: (B, K, h, w); empty before the first batch.
    """

    weight: Tensor
    features: Tensor = field(default_factory=lambda: torch.zeros(0))

    def maps(self, classes: Tensor | None = None) -> Tensor:
        """Return the maps of the last batch, see `class_maps`."""
        return class_maps(self.features, self.weight, classes)


@contextmanager
def watch_classifier(network: nn.Module) -> Iterator[ClassifierFeatures]:
    """Keep the features of every batch that goes through an Ultralytics classifier, for as long as the block lasts.

    Raises:
        ArgumentError: Not a classifier.
    """
    head: Any = network.model[-1]  # type: ignore[index]
    if not isinstance(getattr(head, "linear", None), nn.Linear):
        raise ArgumentError(f"{type(head).__name__} has no class maps: only a classifier has. Use map_targets.")
    seen = ClassifierFeatures(head.linear.weight.detach().float())

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.features = output.detach().float()

    handle = head.conv.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
