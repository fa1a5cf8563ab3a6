"""Ultralytics trainers that keep a pruned network: theirs build one from the model's yaml and un-prune without a word.

    YOLO("pruned.pt").train(trainer=keeping_modules(DetectionTrainer), data=..., lr0=0.001, warmup_bias_lr=0)

`Model.train` and a resumed training both ask the trainer for a network (`get_model`) and hand it the loaded weights.
Ultralytics builds the network of the yaml and copies the tensors whose shapes agree, so that a pruned one comes back at
its old width, mostly with random weights. Here the loaded network itself is trained.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.tasks import BaseModel, load_checkpoint

from mlflow_yolo.compression.pruning.size import count_parameters
from mlflow_yolo.exceptions import ArgumentError, DatasetError, WorkError


def keeping_modules(base: type[BaseTrainer]) -> type[BaseTrainer]:
    """Return a trainer like `base` that trains the loaded network itself, pruned or not, and checks that it did.

    Its checkpoints are stock ones. Resuming works with the same class. After training the number of parameters of
    `last.pt` and `best.pt` is compared with the one at the start.

    Raises (the trainer, while it starts):
        ArgumentError: `pretrained=False`, or a model without weights.
        DatasetError: The classes or the channels of the data are not the network's.
        WorkError: (at the end) a checkpoint has another number of parameters.
    """

    class KeepingTrainer(base):  # type: ignore[misc]
        n_parameters = 0

        def get_model(self, cfg: Any = None, weights: BaseModel | None = None, verbose: bool = True) -> BaseModel:
            """Return a copy of the loaded network, ready to be trained."""
            if weights is None:
                raise ArgumentError("there are no weights to keep. Train a .pt checkpoint, without pretrained=False.")
            check_classes(weights, self.data)
            network = deepcopy(weights).float().requires_grad_(True)
            network.criterion = None
            for module in network.modules():
                if isinstance(module, nn.Dropout) and self.args.dropout:
                    module.p = self.args.dropout
            self.n_parameters = count_parameters(network)
            return network

        def setup_model(self) -> Any:
            """Set up as `base` does; a process of several GPUs is handed the network without `get_model`."""
            checkpoint = super().setup_model()
            self.n_parameters = self.n_parameters or count_parameters(getattr(self.model, "student_model", self.model))
            return checkpoint

        def final_eval(self) -> None:
            """Validate as `base` does, then check that nothing was un-pruned."""
            super().final_eval()
            for file in (self.last, self.best):
                if file.exists():
                    found = count_parameters(load_checkpoint(file)[0])
                    if found != self.n_parameters:
                        raise WorkError(
                            f"{file} has {found} parameters and the network it came from {self.n_parameters}: "
                            f"it was rebuilt during training. Train with keeping_modules alone to find out where."
                        )

    KeepingTrainer.__name__ = KeepingTrainer.__qualname__ = f"Keeping{base.__name__}"
    return KeepingTrainer


def keeping_zeros(base: type[BaseTrainer]) -> type[BaseTrainer]:
    """Return a trainer like `base` that keeps weights of convolutions and linear layers at 0 which start there.

    After each optimizer step they are set to 0 again, so a network from `sparsify` stays as sparse as it was.
    """

    class ZeroKeepingTrainer(base):  # type: ignore[misc]
        def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            """Return the optimizer of `base`, which afterwards clears what must stay 0."""
            masks = [(weight, weight.detach() != 0) for weight in prunable_weights(model).values()]

            @torch.no_grad()
            def clear(*_: Any) -> None:
                for weight, mask in masks:
                    weight.mul_(mask)

            optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)
            optimizer.register_step_post_hook(clear)
            return optimizer

    ZeroKeepingTrainer.__name__ = ZeroKeepingTrainer.__qualname__ = f"ZeroKeeping{base.__name__}"
    return ZeroKeepingTrainer


def prunable_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights that unstructured pruning may clear, by name: of convolutions and linear layers, no biases.

    The fixed integral of a distribution head (`dfl`) is no weight.
    """
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and ".dfl" not in name
    }


def is_pruned(network: BaseModel) -> bool:
    """Return whether layers have other widths than the network's own yaml says, so that only `keeping_modules` fits."""
    first = next(parameter for parameter in network.parameters() if parameter.ndim == 4)
    fresh = type(network)(deepcopy(network.yaml), ch=first.shape[1], nc=len(network.names), verbose=False)
    shapes = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    return any(tensor.shape != shapes.get(name, tensor.shape) for name, tensor in network.state_dict().items())


def check_classes(network: BaseModel, data: Mapping[str, Any]) -> None:
    """Check that a network was trained for the classes of a dataset as Ultralytics describes it.

    Raises:
        DatasetError: Names or their order differ.
    """
    ours, theirs = list(network.names.values()), list(data["names"].values())
    if ours != theirs:
        raise DatasetError(
            f"the data's classes ({', '.join(map(str, theirs[:5]))}) are not the model's "
            f"({', '.join(map(str, ours[:5]))}). Use the data the model was trained on."
        )
