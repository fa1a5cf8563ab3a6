"""What is said before a training: Ultralytics' trainer gives a pruned model its removed channels back."""

import logging
from collections.abc import Mapping
from typing import Any

_LOG = logging.getLogger(__name__)


def warn_of_unpruning(model: Any, arguments: Mapping[str, Any]) -> None:
    """Warn where a pruned model is about to be trained by a trainer that builds it anew from its yaml.

    Args:
        model: The Ultralytics model, before `train`; left as it is, like the random numbers.
        arguments: What `train` is called with; with a `trainer` of the user's own nothing is said.
    """
    import torch

    from mlflow_yolo.compression.pruning.trainer import is_pruned

    network = getattr(model, "model", None)
    if arguments.get("trainer") is not None or not isinstance(network, torch.nn.Module):
        return
    with torch.random.fork_rng(devices=[]):
        unprunes = is_pruned(network)
    if unprunes:
        _LOG.warning(
            "mlflow_yolo: this model was pruned, and Ultralytics' trainer gives it its removed channels back. To keep "
            "it small: from mlflow_yolo.compression.pruning.trainer import keeping_modules, then "
            "train(trainer=keeping_modules(DetectionTrainer), ...), or mlflow-yolo train."
        )
