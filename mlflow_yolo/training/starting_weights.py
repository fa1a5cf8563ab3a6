"""The network that a training begins with, as a checkpoint of its own, so that it can be pruned or timed before.

Ultralytics makes it inside the training: the model's layers with a head for the classes of the data.
"""

from copy import deepcopy
from pathlib import Path

import torch
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT

from mlflow_yolo.compression.pruning.checkpoints import write_network
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.models import checkpoint


def starting_weights(source: str, dataset: Dataset, path: Path, *, seed: int) -> Path:
    """Return the checkpoint that a training begins with: the model's own file where it has the classes of the data.

    Args:
        source: A located model (see `models.checkpoint.read_model`), trained or not.
        dataset: The data.
        path: Where the checkpoint is written that is not there yet: half precision, Ultralytics' classes alone.
        seed: Of the weights that a new head begins with.

    Raises:
        CheckpointError: The model cannot be loaded, or the file cannot be written.
    """
    with torch.random.fork_rng(devices=[]):  # building a network draws its weights
        torch.manual_seed(seed)
        network = checkpoint.load(source, task=dataset.task).model
        trained = Path(source).suffix == ".pt"
        if trained and list(network.names.values()) == list(dataset.names):
            return Path(source)
        write_network(_with_new_head(network, dataset, trained=trained), path)
    return path


def _with_new_head(network: BaseModel, dataset: Dataset, *, trained: bool) -> BaseModel:
    """Return a network like this one for the classes of the data, with what it can take over where it is trained."""
    first = next(parameter for parameter in network.parameters() if parameter.ndim == 4)
    fresh = type(network)(deepcopy(network.yaml), ch=first.shape[1], nc=len(dataset.names), verbose=False)
    fresh.names = dict(enumerate(dataset.names))  # before the weights: rows of classes with the same name stay
    if trained:
        fresh.load(network, verbose=False)
    fresh.task = dataset.task
    fresh.args = {**DEFAULT_CFG_DICT, "task": dataset.task}
    return fresh
