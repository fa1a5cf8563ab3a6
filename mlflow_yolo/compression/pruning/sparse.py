"""Unstructured pruning: the smallest weights become zero. For experiments: nothing gets faster or smaller by it.

A convolution multiplies by a zero as by any other number: ONNX Runtime, OpenVINO and PyTorch have no kernels for
scattered zeros on a CPU. What it shows is how much of a network is needed.
"""

import math
import time
from pathlib import Path

from torch import nn
from torch.nn.utils import prune as torch_prune

from mlflow_yolo.compression.pruning.checkpoints import read_network, write_network
from mlflow_yolo.compression.pruning.record import PruningRecord, size_fields
from mlflow_yolo.compression.pruning.size import measure_size
from mlflow_yolo.compression.pruning.trainer import prunable_weights
from mlflow_yolo.exceptions import ArgumentError


def sparsify(checkpoint: Path, path: Path, amount: float, *, imgsz: int, trust: bool = False) -> PruningRecord:
    """Write a copy of a checkpoint whose smallest weights are 0, and return what was done.

    The weights of all convolutions and linear layers are ranked together by |w| (Han et al. 2015, arXiv 1506.02626).
    No mask is left: the zeros are in the weights. Fine-tune with `keeping_zeros`, or they come back.

    Args:
        checkpoint: A trained checkpoint (.pt).
        path: The file to write.
        amount: Share of these weights that becomes 0, in (0, 1).
        imgsz: Input size that multiply-adds are counted at, pixels.
        trust: Load a checkpoint that names foreign classes.

    Raises:
        CheckpointError: No checkpoint, or one that pruning does not know.
        ArgumentError: The amount is out of range.
    """
    if not (math.isfinite(amount) and 0 < amount < 1):
        raise ArgumentError(f"amount={amount} is not between 0 and 1. Use the share of weights to clear: 0.5.")
    started = time.perf_counter()
    network = read_network(checkpoint, trust=trust)
    size = measure_size(network, imgsz)
    clear_smallest(network, amount)
    write_network(network, path)
    return PruningRecord(
        method="unstructured",
        ratio=amount,
        ratio_reached=sparsity(network),
        **size_fields(size, size, checkpoint, path),
        imgsz=imgsz,
        importance="l1",
        seconds=time.perf_counter() - started,
    )


def clear_smallest(network: nn.Module, amount: float) -> None:
    """Set the share `amount` of a network's weights that are smallest in size to 0, for good."""
    layers = [(network.get_submodule(name.removesuffix(".weight")), "weight") for name in prunable_weights(network)]
    torch_prune.global_unstructured(layers, pruning_method=torch_prune.L1Unstructured, amount=amount)
    for layer, name in layers:
        torch_prune.remove(layer, name)


def sparsity(network: nn.Module) -> float:
    """Return the share of weights of convolutions and linear layers that are 0."""
    weights = prunable_weights(network).values()
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
