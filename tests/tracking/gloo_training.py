"""Ultralytics' multi-GPU training with two processes on a CPU: what has to differ, and witnesses of what happens.

Everything else is Ultralytics' own: the parent that pickles trainer, model and callbacks and starts
`torch.distributed.run`, the script that unpickles them in each process, samplers, `DistributedDataParallel`, barriers,
gathering of validation results, and the events of each rank.
"""

import json
import math
import os
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK

WORLD_SIZE = 2


class _CpuDistributed(nn.parallel.DistributedDataParallel):
    """Takes no device: the trainer names that of its GPU."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **given: Any) -> None:
        super().__init__(module, **given)


class GlooTrainer(DetectionTrainer):  # type: ignore[misc]
    """A trainer of two processes on the CPU; properties, because Ultralytics allows several processes on GPUs only."""

    ddp = property(lambda self: LOCAL_RANK == -1, lambda self, _: None)
    world_size = property(lambda self: WORLD_SIZE, lambda self, _: None)

    def _setup_ddp(self) -> None:
        self.device = torch.device("cpu")
        distributed.init_process_group("gloo", rank=RANK, world_size=WORLD_SIZE)

    def _setup_train(self) -> None:
        with mock.patch.object(nn.parallel, "DistributedDataParallel", _CpuDistributed):
            super()._setup_train()

    def validate(self) -> Any:
        with mock.patch.object(distributed, "reduce", _reduce):
            return super().validate()

    def final_eval(self) -> None:
        """Validate `best.pt` on the CPU, where Ultralytics takes the current GPU of each rank."""
        from ultralytics.engine import validator

        load, gpu = validator.AutoBackend, SimpleNamespace(current_device=lambda: 0)
        with (
            mock.patch.object(validator, "AutoBackend", lambda **given: load(**{**given, "device": self.device})),
            mock.patch.object(validator, "get_torch_device_backend", return_value=gpu),
        ):
            super().final_eval()


_reduce_sum = distributed.reduce


def _reduce(tensor: torch.Tensor, dst: int, op: Any) -> None:
    """Average as NCCL does; gloo only adds."""
    assert op == distributed.ReduceOp.AVG
    _reduce_sum(tensor, dst=dst, op=distributed.ReduceOp.SUM)
    tensor /= WORLD_SIZE


def witness_steps(trainer: Any) -> None:
    """Write down, for each optimizer step of this rank, the L2 norm of every block's gradient as the step finds it."""
    original = trainer.optimizer_step
    steps: list[dict[int, float]] = []

    def step() -> None:
        squares: defaultdict[int, float] = defaultdict(float)
        for name, p in trainer.model.module.named_parameters():
            if p.grad is not None:
                squares[int(name.split(".")[1])] += float(p.grad.double().square().sum())
        steps.append({block: math.sqrt(value) for block, value in squares.items()})
        original()

    trainer.optimizer_step = trainer.witnessed_step = step
    trainer.witnessed = steps


def witness_end(trainer: Any) -> None:
    """Write `rank<r>.json` beside the training's folder: the steps, and what of ours lives in this process."""
    found = {
        "steps": trainer.witnessed,
        "own_step": trainer.optimizer_step is trainer.witnessed_step,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "mlflow": "mlflow.tracking" in sys.modules,
        "pid": os.getpid(),
    }
    Path(trainer.save_dir).with_name(f"rank{RANK}.json").write_text(json.dumps(found))


def fail_in_the_second_process(trainer: Any) -> None:
    """Raise where the first process does not, in the middle of the training."""
    if RANK == 1 and trainer.epoch == 1:
        raise ZeroDivisionError("the second process")
