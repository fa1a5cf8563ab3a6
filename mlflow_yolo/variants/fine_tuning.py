"""Training a checkpoint on: after pruning, with a teacher, and as the control that both are judged against."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_yolo.compression.distillation.settings import Distillation
from mlflow_yolo.models.arguments import check_arguments, check_device, check_optimizer, check_positive
from mlflow_yolo.stages import Stages
from mlflow_yolo.tracking.delivery.replay import close_interrupted
from mlflow_yolo.tracking.events.command_run import child_run
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.training.plan import Plan, Stage
from mlflow_yolo.training.train import train
from mlflow_yolo.variants.subject import Subject

_GENTLE = {"warmup_bias_lr": 0.0}
"""Ultralytics warms up biases from a learning rate of 0.1 down, which throws a trained model far off."""


@dataclass(frozen=True)
class FineTuning:
    """How a checkpoint is trained on.

    Attributes:
        epochs: Epochs; 0 for none.
        batch: Images a batch.
        device: A device, or `auto`.
        optimizer: An explicit optimizer.
        lr0: Initial learning rate; a trained model needs less than a new one.
        seed: Seed of augmentation and data order.
        arguments: Further Ultralytics training arguments.
    """

    epochs: int
    batch: int = 16
    device: str = "auto"
    optimizer: str = "AdamW"
    lr0: float = 0.001
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> dict[str, Any]:
        """What the run's params say of it; the device is left out, since it decides nothing."""
        names = ("epochs", "batch", "optimizer", "lr0", "seed")
        return {**{name: getattr(self, name) for name in names}, **self.arguments}

    def check(self) -> None:
        """Raise ArgumentError for the first value that cannot be used."""
        check_positive(batch=self.batch, **({"epochs": self.epochs} if self.epochs else {}))
        check_arguments({"lr0": self.lr0, "seed": self.seed, **self.arguments})
        check_optimizer(self.optimizer)
        check_device(self.device)


def fine_tune(
    subject: Subject,
    path: Path,
    settings: FineTuning,
    *,
    name: str,
    parent: TrackedRun,
    tracking: Target,
    directory: Path,
    stages: Stages,
    distillation: Distillation | None = None,
) -> Path:
    """Train a checkpoint on in a child run, write its best weights to `path` and return it.

    A `path` that exists is left as it is: this step was done before an interruption. The modules of a pruned checkpoint
    are kept (`training.trainers`).

    Args:
        subject: The checkpoint and its data.
        path: The `.pt` file to write, whole or not at all.
        settings: How long and how fast.
        name: Of the child run and its folder.
        parent: The open parent run.
        tracking: Where the child goes.
        directory: Folder below which the child writes.
        stages: Told how many epochs are done.
        distillation: What is learned from a teacher.
    """
    if path.is_file():
        return path
    folder = _fresh(directory / name)
    plan = Plan(
        model=subject.model.source,
        data=subject.data,
        task=subject.model.task,
        stages=(Stage(settings.epochs, (), settings.lr0, 0.5),),
        seed=settings.seed,
        imgsz=subject.imgsz,
        batch=settings.batch,
        device=check_device(settings.device),
        optimizer=check_optimizer(settings.optimizer),
        maps=0,
        arguments={**_GENTLE, **settings.arguments},
        distillation=distillation.to_json() if distillation else None,
    )
    with child_run(parent, tracking, folder, name=name) as run:
        run.log_params({"epochs": settings.epochs, "lr0": settings.lr0, "seed": settings.seed, "model": subject.label})
        if distillation:
            run.log_params({"teacher": Path(distillation.teacher).name, **_losses(distillation)})
        with _quiet():
            train(plan, run=run, directory=folder, shared=directory, report=_counted(stages, name))
    keep(folder / "train" / "weights" / "best.pt", path)
    return path


def keep(source: Path, path: Path) -> None:
    """Copy a file to `path` so that it is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    shutil.copyfile(source, unfinished)
    unfinished.replace(path)


def _counted(stages: Stages, name: str) -> Callable[[dict[str, Any]], None]:
    """Return what is told of every epoch, for a stage of the terminal's bar."""
    count = stages.count(name, unit="epoch")
    return lambda values: count(values["epoch"], values["epochs"]) if "epoch" in values else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ultralytics' tables and bars out of the command's result; its warnings stay."""
    logger = logging.getLogger("ultralytics")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _losses(distillation: Distillation) -> dict[str, float]:
    return {f"distillation/{name}": weight for name, weight in distillation.weights.items()}


def _fresh(folder: Path) -> Path:
    """Return `folder`, or the first of `folder-2`, `folder-3`, … that is new; close the runs of the others."""
    number = 1
    while (attempt := folder if number == 1 else folder.with_name(f"{folder.name}-{number}")).exists():
        close_interrupted(attempt)
        number += 1
    return attempt
