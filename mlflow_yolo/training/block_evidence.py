"""What a few batches say about the blocks of a network before it is trained: gradients, and drift of batch norms."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import BaseModel

from mlflow_yolo.compression.batches import TrainingBatches, training_batches
from mlflow_yolo.compression.pruning.checkpoints import write_network
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.models import checkpoint
from mlflow_yolo.statistics.gradient_signal import BlockSignal, GradientSignal
from mlflow_yolo.statistics.normal_drift import NormalDrift

Progress = Callable[[int, int], None]
"""Told how many batches were seen, and of how many."""


@dataclass(frozen=True)
class Evidence:
    """What the training batches of one dataset say about the blocks of one network.

    Attributes:
        signals: Gradient of every block that has weights, by index.
        drift: Divergence of every block that has batch norms, by index (see `statistics.normal_drift`).
        n_batches: Batches it was measured on.
        n_images: Images in them.
        new_head: Whether the data have another number of classes, so that the head was a new one.
    """

    signals: Mapping[int, BlockSignal]
    drift: Mapping[int, float]
    n_batches: int
    n_images: int
    new_head: bool = False


def start_network(network: BaseModel, dataset: Dataset) -> BaseModel:
    """Return the network that a training on this data starts from: with more or fewer classes, the head is a new one.

    Args:
        network: The loaded one; it is returned as it is where its classes are those of the data. As in a training,
            the weights of a class go with its name.
        dataset: The data.
    """
    if list(network.names.values()) == list(dataset.names):
        return network
    yaml: dict[str, Any] = deepcopy(network.yaml)
    if shape := getattr(dataset.description, "kpt_shape", None):
        yaml["kpt_shape"] = shape
    first = next(parameter for parameter in network.parameters() if parameter.ndim == 4)
    fresh: BaseModel = type(network)(yaml, ch=first.shape[1], nc=len(dataset.names), verbose=False)
    fresh.names = dict(enumerate(dataset.names))  # before loading: rows of classes of the same name are taken over
    fresh.load(network, verbose=False)
    fresh.args, fresh.task = network.args, network.task
    return fresh


def measure_blocks(
    model: str,
    dataset: Dataset,
    *,
    imgsz: int,
    batch: int,
    n_batches: int,
    seed: int,
    device: torch.device,
    directory: Path,
    arguments: Mapping[str, Any],
    progress: Progress,
) -> Evidence:
    """Return what batches of the training split say about the network that a training on them starts from.

    Args:
        model: A located checkpoint.
        dataset: The data.
        imgsz: Input size, pixels.
        batch: Images a batch.
        n_batches: Batches; fewer where the split has not enough images.
        seed: Decides which images, and the weights of a new head.
        device: Where it is computed.
        directory: Where a network with a new head is kept for a while.
        arguments: Ultralytics arguments of the training: the gains of its losses count.
        progress: Told after every batch of either pass.

    Raises:
        InputError: The checkpoint or the data cannot be used.
    """
    torch.manual_seed(seed)
    loaded = checkpoint.load(model).model
    network = start_network(loaded, dataset)
    source = Path(model)
    if network is not loaded:
        source = directory / "start.pt"
        write_network(network, source)
    try:
        batches = training_batches(source, dataset, imgsz=imgsz, batch=batch, n=n_batches, seed=seed)
    finally:
        if network is not loaded:
            source.unlink()
    network.to(device).float().requires_grad_(True)
    network.args, network.criterion = get_cfg(overrides=dict(arguments)), None
    total = 2 * len(batches)
    signals = gradient_signals(network, batches, told=lambda done: progress(done, total))
    drift = batch_norm_drift(network, batches, told=lambda done: progress(len(batches) + done, total))
    return Evidence(signals, drift, len(batches), batches.n_images, len(network.names) != len(loaded.names))


def gradient_signals(
    network: BaseModel, batches: TrainingBatches, *, told: Callable[[int], None]
) -> dict[int, BlockSignal]:
    """Return the gradient of the training loss by block; network and buffers are afterwards as before.

    The batch norms use the statistics they keep, as those of a frozen block do. The loss is that of one image: neither
    scaled for half precision, nor accumulated, nor clipped.

    Args:
        network: With its training arguments.
        batches: Training batches.
        told: Called with the number of batches done.
    """
    blocks = {int(block.i): _trainable(block) for block in network.model}
    signal = GradientSignal({index: parameters for index, parameters in blocks.items() if parameters})
    with training_loss(network):
        for number, batch in enumerate(batches, start=1):
            network.zero_grad(set_to_none=True)
            _loss(network, batch).backward()
            signal.add()
            told(number)
    network.zero_grad(set_to_none=True)
    return signal.blocks()


def batch_norm_drift(network: BaseModel, batches: TrainingBatches, *, told: Callable[[int], None]) -> dict[int, float]:
    """Return how far the inputs of the batch norms of every block are from what they keep; nothing is changed.

    Args:
        network: Any network of blocks.
        batches: Batches with `img`.
        told: Called with the number of batches done.
    """
    drift = NormalDrift([(int(block.i), block) for block in network.model])
    device = next(network.parameters()).device
    with training_loss(network), drift.watching(), torch.no_grad():
        for number, batch in enumerate(batches, start=1):
            network(batch["img"].to(device))
            told(number)
    return drift.blocks()


@contextmanager
def training_loss(network: nn.Module) -> Iterator[None]:
    """Let a network answer as its loss needs it, without moving a statistic or dropping an activation.

    Afterwards every module is in the mode it was in.
    """
    modes = {module: module.training for module in network.modules()}
    network.train()
    for module in network.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            module.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _trainable(block: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a block that a training can change; the integral of a distribution head is none."""
    return [parameter for name, parameter in block.named_parameters() if "dfl" not in name.split(".")]


def _loss(network: BaseModel, batch: Mapping[str, Any]) -> torch.Tensor:
    """Return the loss of a batch as that of one image; only a classifier's is a mean already."""
    device = next(network.parameters()).device
    there = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    loss: torch.Tensor = network.loss(there)[0].sum()
    return loss if network.task == "classify" else loss / len(there["img"])
