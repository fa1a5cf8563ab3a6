"""Where the trials of a search run: on this machine, or on the machines of a Ray cluster."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.arguments import check_device, check_positive
from mlflow_yolo.studies.executors import Executor
from mlflow_yolo.studies.study import Study
from mlflow_yolo.tracking.stores.target import Target

if TYPE_CHECKING:
    from mlflow_yolo.studies.executors.ray import RayExecutor

EXECUTORS = ("local", "ray")
WORKER = (sys.executable, "-m", "mlflow_yolo.studies.tuning.worker")
"""The program that does a trial."""

_MOST_CPU_WORKERS = 2
"""Trials at once on a machine without GPU where nobody says how many: each needs the memory of a training."""


@dataclass(frozen=True)
class Where:
    """Where trials run, and how many at once.

    Attributes:
        executor: `local` or `ray`.
        workers: Trials at once; None on Ray for as many as the cluster has room for.
        threads: Threads of a trial, and the processors that Ray reserves for it.
        device: The device that each trial uses, as it sees it: `0` where it is given one GPU.
        gpus: GPUs of this machine that are shared out (local).
        gpus_per_trial: GPUs that Ray reserves for a trial.
        address: Of the Ray cluster.
    """

    executor: str
    workers: int | None
    threads: int
    device: str
    gpus: tuple[str, ...] = ()
    gpus_per_trial: float = 0.0
    address: str = "auto"

    def make(self, study: Study, target: Target) -> Executor:
        """Return a new executor for a study's trials."""
        environment = {"MLFLOW_TRACKING_URI": target.tracking_uri}
        if self.executor == "ray":
            return self._ray(study.threads, environment)
        from mlflow_yolo.studies.executors.local import SubprocessExecutor

        return SubprocessExecutor(
            workers=self.workers or 1, threads=study.threads, environment=environment, command=WORKER, gpus=self.gpus
        )

    def check(self) -> None:
        """Find out, before anything is begun, whether trials can run there.

        Raises:
            ArgumentError: Ray is not installed, or there is no cluster with room for a trial.
        """
        if self.executor == "ray":
            self._ray(self.threads, {}).check()

    def _ray(self, threads: int, environment: Mapping[str, str]) -> "RayExecutor":
        from mlflow_yolo.studies.executors.ray import RayExecutor

        return RayExecutor(
            address=self.address,
            workers=self.workers,
            cpus=threads,
            gpus=self.gpus_per_trial,
            threads=threads,
            environment=environment,
            command=WORKER,
        )


def where(
    executor: str, *, address: str, workers: int | None, threads: int | None, device: str, gpus_per_trial: float
) -> Where:
    """Return where trials run.

    Args:
        executor: `local` or `ray`.
        address: Of the Ray cluster: `auto`, `local` or `ray://host:port`.
        workers: Trials at once; None for one a GPU, without GPU for as many as there are cores, at most two, and on Ray
            for as many as there is room for.
        threads: Threads of a trial; None for an equal share of the cores, on Ray for one.
        device: As for a training; several GPUs of this machine (`0,1`) are shared out, one a trial.
        gpus_per_trial: On Ray, the GPUs of a trial; a share such as 0.5 lets two use the same one.

    Raises:
        ArgumentError: An unknown executor, no worker, or a device that this machine does not have.
    """
    if executor not in EXECUTORS:
        raise ArgumentError(f"executor={executor} does not exist. Use {' or '.join(EXECUTORS)}.")
    check_positive(workers=workers, threads=threads)
    if gpus_per_trial < 0:
        raise ArgumentError(f"gpus_per_trial={gpus_per_trial:g} is below 0. Use 0 for none, or for example 1.")
    if executor == "ray":  # this machine need not have what the cluster has
        return Where(executor, workers, threads or 1, "0" if gpus_per_trial else "cpu", (), gpus_per_trial, address)
    named = device.split(",") if "," in device else [device]
    for one in named:
        check_device(one)
    gpus = tuple(named) if len(named) > 1 else _visible_gpus() if device == "auto" else ()
    n_cores = os.cpu_count() or 1
    n_workers = workers or len(gpus) or min(_MOST_CPU_WORKERS, n_cores)
    return Where(
        executor, n_workers, threads or max(1, n_cores // n_workers), "0" if gpus else check_device(device), gpus
    )


def _visible_gpus() -> tuple[str, ...]:
    """Return the GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(visible.split(",")) if visible else tuple(str(index) for index in range(torch.cuda.device_count()))
