"""Which trainer a plan needs: Ultralytics' own, unless that would undo or leave out what was asked for."""

from typing import TYPE_CHECKING, Any

from mlflow_yolo.training.plan import Plan, Stage

if TYPE_CHECKING:
    from ultralytics import YOLO

SPARSE_FROM = 0.01
"""Share of weights that are exactly 0 from which on they are kept at 0: training alone gives none."""


def trainer_of(network: "YOLO", plan: Plan, stage: Stage) -> type[Any] | None:
    """Return the trainer class for a stage of a loaded model, None for Ultralytics' own.

    A pruned model keeps its modules: Ultralytics builds the network anew from its yaml, which silently gives a pruned
    one its removed channels back. One whose weights were cleared keeps them at 0. With `plan.distillation` the loss of
    a teacher is added; what a teacher needs beside the model learns at the full rate, so rates by block come last.
    """
    import torch

    from mlflow_yolo.compression.pruning.sparse import sparsity
    from mlflow_yolo.compression.pruning.trainer import is_pruned, keeping_modules, keeping_zeros

    base: type[Any] = network.task_map[network.task]["trainer"]
    trainer = base
    with torch.random.fork_rng(devices=[]):  # comparing builds a network, which draws its weights
        if is_pruned(network.model):
            trainer = keeping_modules(trainer)
    if sparsity(network.model) > SPARSE_FROM:
        trainer = keeping_zeros(trainer)
    if plan.distillation:
        from mlflow_yolo.compression.distillation.settings import Distillation
        from mlflow_yolo.compression.distillation.trainer import distilling

        trainer = distilling(trainer, Distillation.from_json(plan.distillation))
    if plan.lr_decay != 1:
        from mlflow_yolo.training.layer_lr import decaying

        trainer = decaying(trainer, plan.lr_decay)
    if stage.unfreeze:
        from mlflow_yolo.training.gradual import unfreezing

        trainer = unfreezing(trainer, stage)
    return None if trainer is base else trainer
