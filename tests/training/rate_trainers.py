"""Trainers without data: a network, an optimizer and what a step needs, for looking at learning rates."""

from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp")


def network_of(model: Path) -> Any:
    """Return a network in double precision, in which small steps of large weights can be seen."""
    torch.manual_seed(0)
    return YOLO(str(model), verbose=False).model.double()


def idle(
    trainer_class: type[Any], network: Any, *, optimizer: str = "SGD", decay: float = 0.0, batches: int = 4
) -> Any:
    """Return a trainer that can step: set up as Ultralytics does, of `batches` batches an epoch, in epoch 0."""
    trainer = trainer_class.__new__(trainer_class)
    trainer.model, trainer.device, trainer.ema, trainer.epoch = network, torch.device("cpu"), None, 0
    trainer.scaler = torch.amp.GradScaler("cuda", enabled=False)
    trainer.train_loader, trainer.callbacks = range(batches), {}
    trainer.freeze_layer_names = [".dfl"]
    trainer.optimizer = trainer.build_optimizer(network, name=optimizer, lr=0.01, momentum=0.9, decay=decay)
    return trainer


def stock(network: Any, *, optimizer: str, decay: float = 0.0) -> torch.optim.Optimizer:
    """Return the optimizer of Ultralytics' own trainer."""
    return idle(DetectionTrainer, network, optimizer=optimizer, decay=decay).optimizer


def options_by_parameter(optimizer: torch.optim.Optimizer, network: Any) -> dict[str, dict[str, Any]]:
    """Return the options of every parameter of an optimizer; each must be in one group, once."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = {key: value for key, value in group.items() if key != "params"}
    return found


def moved_by_a_step(trainer: Any, gradient: float = 1e-3) -> dict[str, float]:
    """Return by how much each parameter changes in a step whose gradients are all the same."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
    trainer.optimizer_step()
    after = trainer.model.named_parameters()
    return {name: float((before[name] - p.detach()).mean()) for name, p in after}


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    """Return the weights and buffers of a checkpoint."""
    return {name: value.float() for name, value in YOLO(file).model.state_dict().items()}


def train_small(model: Path, data: Path, folder: Path, trainer: type[Any] | None, **arguments: Any) -> Any:
    """Return the trainer of a short training."""
    network = YOLO(str(model), verbose=False)
    for event, listener in arguments.pop("callbacks", {}).items():
        network.add_callback(event, listener)
    usual = {"epochs": 2, "imgsz": 64, "batch": 4, "nbs": 4, "workers": 0, "device": "cpu", "optimizer": "AdamW"}
    usual |= {"lr0": 0.01, "warmup_epochs": 0.5, "seed": 1, "plots": False, "verbose": False, "save_dir": str(folder)}
    network.train(trainer=trainer, data=str(data), **usual | arguments)
    return network.trainer
