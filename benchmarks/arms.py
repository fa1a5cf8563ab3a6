"""The trainings of `step_overhead`: Ultralytics' own trainer, watched by mlflow_yolo or by wandb half of the time."""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.switch import Clock, Record, Watch

NOBODY, MLFLOW_YOLO, WANDB = "nobody", "mlflow_yolo", "wandb"
EXPERIMENT = "step_overhead"

_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "neptune", "raytune", "tensorboard", "wandb")

Finish = Callable[[], object]
Notify = Callable[[bool], None]


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        data: A data.yaml.
        imgsz: Pixels.
        batch: Images a step.
        epochs: Each ends with a validation and a checkpoint.
        block: Steps between two changes of the watcher; the number of batches must be a multiple of it.
        device: 'cpu' or a CUDA index.
        amp: Whether mixed precision is used (CUDA only).
        model: A model's yaml.
    """

    data: str
    imgsz: int
    batch: int
    epochs: int
    block: int = 1
    device: str = "cpu"
    amp: bool = False
    model: str = "yolo11n.yaml"


@dataclass(frozen=True)
class Watcher:
    """Who watches.

    Attributes:
        kind: MLFLOW_YOLO, WANDB or NOBODY, whose cost is what the method finds where nothing is to be found.
        options: Of MLFLOW_YOLO the options of `mlflow_yolo.track`.
    """

    kind: str = NOBODY
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a finished training says about itself.

    Attributes:
        record: Its steps and epochs.
        sampled: (epoch from 0, watched step within it from 0) of every step whose gradients are in `layers.parquet`.
        threads: Threads that torch used.
    """

    record: Record
    sampled: frozenset[tuple[int, int]]
    threads: int


def is_installed(kind: str) -> bool:
    """Return whether the package of a watcher is there."""
    return kind == NOBODY or importlib.util.find_spec(kind) is not None


def train(training: Training, watcher: Watcher, directory: Path) -> Trained:
    """Train in a fresh process, which takes some ten seconds to start.

    Args:
        training: What is trained.
        watcher: Who watches it.
        directory: For everything that is written, `log.txt` (what was printed) among it; made here.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(train_here, training, watcher, directory).result()


def train_here(training: Training, watcher: Watcher, directory: Path) -> Trained:
    """Train in this process, which is changed for good: environment, settings, clock, working directory."""
    clock = Clock()
    time.perf_counter = clock  # before anybody takes it for a default argument
    directory.mkdir(parents=True)
    os.chdir(directory)
    _isolate(directory)
    with (directory / "log.txt").open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        import torch
        from ultralytics import YOLO, settings

        settings.update({name: False for name in _INTEGRATIONS if name in settings})
        if training.amp:  # the check would download weights; what it looks for is no matter of speed
            import ultralytics.engine.trainer as engine

            engine.check_amp = lambda model: True
        network = YOLO(training.model)
        stock = {event: list(functions) for event, functions in network.callbacks.items()}
        notify, finish = _WATCHERS[watcher.kind](network, watcher.options, directory)
        synchronise = torch.cuda.synchronize if training.device != "cpu" else lambda: None
        watch = Watch(block=training.block, clock=clock, seed=0, notify=notify, synchronise=synchronise)
        _patch(torch, watch)
        network.add_callback("on_pretrain_routine_end", watch.double)
        network.add_callback("on_train_start", lambda trainer: watch.attach(trainer, stock=stock))
        network.train(**_arguments(training, directory))
        finish()
        return Trained(watch.record, sampled_steps(directory), torch.get_num_threads())


def _patch(torch: Any, watch: Watch) -> None:
    """Let the watch know when a backward pass ends, and how long the module hooks take that are set from now on."""
    backward, module = torch.Tensor.backward, torch.nn.Module
    register, register_pre = module.register_forward_hook, module.register_forward_pre_hook

    def backward_and_note(*args: Any, **kwargs: Any) -> None:
        backward(*args, **kwargs)
        watch.end_backward()

    torch.Tensor.backward = backward_and_note
    module.register_forward_hook = lambda self, hook, **kwargs: register(self, watch.timed(hook), **kwargs)
    module.register_forward_pre_hook = lambda self, hook, **kwargs: register_pre(self, watch.timed(hook), **kwargs)


def _arguments(training: Training, directory: Path) -> dict[str, Any]:
    return {
        "data": training.data,
        "imgsz": training.imgsz,
        "batch": training.batch,
        "epochs": training.epochs,
        "device": training.device,
        "amp": training.amp,
        # An optimizer step for every batch, and the cheapest optimizer: whatever watching costs weighs most.
        "nbs": training.batch,
        "warmup_epochs": 0.0,
        "optimizer": "SGD",
        "lr0": 0.001,
        # Images are loaded between the steps, in this process, so that no worker competes for the cores.
        "workers": 0,
        "cache": "ram",
        "mosaic": 0.0,
        "plots": False,
        "seed": 0,
        "save_dir": str(directory / "train"),
        "exist_ok": True,
    }


def sampled_steps(directory: Path) -> frozenset[tuple[int, int]]:
    """Return (epoch, step), both from 0, of every row of gradients in the `layers.parquet` below a directory."""
    import pandas as pd

    found: set[tuple[int, int]] = set()
    for file in directory.rglob("train/statistics/layers.parquet"):
        frame = pd.read_parquet(file, columns=["epoch", "step", "kind"], filters=[("kind", "==", "gradients")])
        found |= {(int(epoch) - 1, int(step)) for epoch, step in zip(frame["epoch"], frame["step"], strict=True)}
    return frozenset(found)


def _isolate(directory: Path) -> None:
    """Keep settings, caches and telemetry of the libraries away from the user's own and from the network."""
    (directory / "ultralytics").mkdir()
    os.environ |= {
        "YOLO_CONFIG_DIR": str(directory / "ultralytics"),
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "MPLBACKEND": "Agg",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(directory),
        "WANDB_SILENT": "true",
    }


def _nobody(network: Any, options: Mapping[str, Any], directory: Path) -> tuple[Notify, Finish]:
    return lambda is_present: None, lambda: None


def _mlflow_yolo(network: Any, options: Mapping[str, Any], directory: Path) -> tuple[Notify, Finish]:
    import mlflow_yolo

    uri = f"sqlite:///{directory / 'mlflow.db'}"
    mlflow_yolo.track(network, tracking_uri=uri, experiment=EXPERIMENT, **options)
    return lambda is_present: None, lambda: None


def _wandb(network: Any, options: Mapping[str, Any], directory: Path) -> tuple[Notify, Finish]:
    """Watch as wandb's documentation says: hooks on every parameter, and a `log` a step, which sends what they saw.

    Hooks of parameters cannot be taken off and put back; in steps without the watcher they return at once.
    """
    import wandb
    from wandb.integration.torch.wandb_torch import TorchHistory

    run = wandb.init(project=EXPERIMENT, dir=str(directory))
    hooks: Any = TorchHistory
    measure, is_on = hooks.log_tensor_stats, [True]

    def notify(is_present: bool) -> None:
        is_on[0] = is_present

    def log_tensor_stats(history: Any, tensor: Any, name: str) -> None:
        if is_on[0]:
            measure(history, tensor, name)

    hooks.log_tensor_stats = log_tensor_stats
    network.add_callback("on_train_start", lambda trainer: run.watch(trainer.model, log="all", log_freq=1))
    network.add_callback("on_train_batch_end", lambda trainer: run.log({"train/loss": float(trainer.loss)}))
    return notify, run.finish


_WATCHERS: Mapping[str, Callable[[Any, Mapping[str, Any], Path], tuple[Notify, Finish]]] = {
    NOBODY: _nobody,
    MLFLOW_YOLO: _mlflow_yolo,
    WANDB: _wandb,
}
