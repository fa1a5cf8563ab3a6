"""Any of Ultralytics' trainers, with a teacher."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from mlflow_yolo.compression.distillation.criterion import DistillationCriterion
from mlflow_yolo.compression.distillation.feature_maps import HeadInput, Projectors, head_widths
from mlflow_yolo.compression.distillation.settings import FEATURE_LOSSES, Distillation
from mlflow_yolo.compression.distillation.teacher import check_levels, check_task, locate_teacher, open_teacher
from mlflow_yolo.exceptions import ArgumentError

MAX_NORM = 10.0
"""Norm to which the projectors' gradients are clipped; Ultralytics clips the network's to the same."""


def distilling(base: type[BaseTrainer], settings: Distillation) -> type[BaseTrainer]:
    """Return a trainer class that trains as `base` does and also learns from a teacher.

    The teacher is neither in the model, nor in its moving average, nor in a checkpoint: `last.pt` and `best.pt` are
    what `base` writes (with `native`, which wraps the model, `last.pt` is so only at the end). Projectors lie beside
    them in `projectors.pt` while the training lasts, and it is resumed with a class made from the same settings.
    `results.csv` has a column `train/kd_<loss>` for each loss: its distance before weight and warm-up.

    Args:
        base: Trainer of a detector, segmenter or classifier: Ultralytics' own or one derived from it.
        settings: What is distilled.

    Raises:
        ArgumentError: When a trainer is made or begins: see `open_teacher` and `check_levels`, or several GPUs.
    """
    return type(f"Distilling{base.__name__}", (Distilling, base), {"settings": settings})


class Distilling:
    """What `distilling` puts before one of Ultralytics' trainers."""

    settings: Distillation
    _projectors: Projectors | None = None
    _step = 0

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: Any = None, _callbacks: Any = None) -> None:
        super().__init__(cfg, {**(overrides or {}), **_forced_arguments(self.settings)}, _callbacks)  # type: ignore[call-arg]
        check_task(self.settings, self.args.task)
        if self.ddp:
            raise ArgumentError(f"device={self.args.device} names several GPUs; a teacher works on one. Use device=0.")

    def _setup_train(self) -> None:
        data = self.data
        teacher = open_teacher(self.settings, task=self.args.task, names=data["names"], channels=data["channels"])
        if teacher.args.get("imgsz") != self.args.imgsz:
            LOGGER.warning(f"The teacher was trained at imgsz={teacher.args.get('imgsz')}, not {self.args.imgsz}.")
        self._teacher = teacher.to(self.device)
        self._maps = HeadInput()
        super()._setup_train()  # type: ignore[misc]
        self._step = self.start_epoch * len(self.train_loader)
        if self._losses:
            self._attach(_student_of(self.model))

    def _attach(self, student: Any) -> None:
        """Give the student a criterion with the teacher; the moving average was copied before and has none."""
        student.criterion = DistillationCriterion(
            getattr(student, "criterion", None) or student.init_criterion(),
            self.settings,
            teacher=self._teacher,
            projectors=self._projectors,
            maps=self._maps,
            ramp=self._ramp,
        )

    @property
    def _losses(self) -> set[str]:
        """Return the losses that are computed here, not by Ultralytics."""
        return self.settings.weights.keys() - {"native"}

    def _ramp(self) -> float:
        """Return the factor of all weights at the next step, from 0 to 1."""
        n_epochs: float = min(self.settings.warmup_epochs, max(self.epochs - 1, 0))
        self._step += 1
        return min(1.0, self._step / max(1.0, n_epochs * len(self.train_loader)))

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the base's optimizer; projectors are a group of it."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)  # type: ignore[misc]
        student = _student_of(model)
        check_levels(student, self._teacher, self.settings.teacher)
        if FEATURE_LOSSES & self._losses:
            self._projectors = Projectors(head_widths(student), head_widths(self._teacher)).to(self.device)
            _add_group(optimizer, list(self._projectors.parameters()))
        return optimizer

    def preprocess_batch(self, batch: dict[str, Any]) -> Any:
        """Return the base's batch; what the student's head will get of it is kept."""
        if self._projectors is not None:
            self._maps.watch(_student_of(self.model))
        return super().preprocess_batch(batch)  # type: ignore[misc]

    def label_loss_items(self, loss_items: Mapping[str, Any] | None = None, prefix: str = "train") -> Any:
        """Return the base's labels, without distances of a validation, which measures none."""
        labels = super().label_loss_items(loss_items, prefix)  # type: ignore[misc]
        kept = [label for label in labels if not label.startswith("val/kd_")]
        return {label: labels[label] for label in kept} if isinstance(labels, dict) else kept

    def save_model(self) -> Any:
        """Save the base's checkpoints, and the projectors beside them."""
        if self._projectors is not None:
            unfinished = self._projector_file.with_suffix(".unfinished")
            unfinished.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self._projectors.state_dict(), unfinished)
            os.replace(unfinished, self._projector_file)
        return super().save_model()  # type: ignore[misc]

    def _load_checkpoint_state(self, ckpt: Any) -> None:
        """Go on from a checkpoint, after an interruption or a loss that was no number."""
        super()._load_checkpoint_state(ckpt)  # type: ignore[misc]
        if self._projectors is not None and self._projector_file.exists():
            state = torch.load(self._projector_file, map_location=self.device, weights_only=True)
            self._projectors.load_state_dict(state)

    def final_eval(self) -> None:
        """Do the base's last evaluation; the projectors have served."""
        self._projector_file.unlink(missing_ok=True)
        super().final_eval()  # type: ignore[misc]

    @property
    def _projector_file(self) -> Path:
        return Path(self.wdir) / "projectors.pt"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Stand for what the trainer has."""


def _forced_arguments(settings: Distillation) -> dict[str, Any]:
    """Return the Ultralytics arguments that a distillation asks for; it runs uncompiled, as Ultralytics' own does."""
    if not settings.weights.get("native"):
        return {"compile": False}
    return {"compile": False, "distill_model": locate_teacher(settings), "dis": settings.weights["native"]}


def _student_of(model: Any) -> Any:
    """Return the student of a model that Ultralytics may have wrapped with a teacher of its own."""
    unwrapped = unwrap_model(model)
    return getattr(unwrapped, "student_model", unwrapped)


def _add_group(optimizer: torch.optim.Optimizer, projectors: list[nn.Parameter]) -> None:
    """Add the projectors to an optimizer of Ultralytics, with the options of its parameters without weight decay."""
    if not projectors:
        return
    like = next(group for group in reversed(optimizer.param_groups) if group.get("param_group") == "bn")
    options = {name: value for name, value in like.items() if name != "params"}
    optimizer.add_param_group({**options, "params": projectors, "param_group": "projectors"})

    def clip(*_: Any) -> None:  # the trainer clips the parameters of the model only
        nn.utils.clip_grad_norm_(projectors, MAX_NORM)

    optimizer.register_step_pre_hook(clip)
