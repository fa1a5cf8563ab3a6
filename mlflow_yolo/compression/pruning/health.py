"""The health of every channel of a checkpoint, measured on images: what says which channels are dead."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from mlflow_yolo.models.checkpoint import load
from mlflow_yolo.statistics.activations import ActivationProbe
from mlflow_yolo.statistics.channels import ChannelHealth


def channel_health(checkpoint: Path, batches: Iterable[Mapping[str, Any]]) -> ChannelHealth:
    """Return the health of every channel, with the network in inference mode.

    Args:
        checkpoint: A scanned `.pt` file.
        batches: With `img` (B, C, H, W) float in [0, 1]; 256 images or more, or rare objects' channels look dead.
    """
    network: Any = load(str(checkpoint)).model
    network.float().eval()
    with torch.no_grad(), ActivationProbe(list(enumerate(network.model)), max_batches=None) as probe:
        for batch in batches:
            network(batch["img"])
    return probe.result().channels
