"""A study's jobs on the machines of a Ray cluster.

Each job is a Ray task that is never retried by Ray itself: what a lost node or worker means is for the study to decide,
which counts attempts. The task starts the same worker program as on one machine. No part of the study is known to the
cluster: when the driver dies Ray ends its tasks, and with them the workers.
"""

import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.ray_connection import connected, import_ray, passed_on
from mlflow_yolo.studies.executors import Event, Job, NextJob
from mlflow_yolo.studies.executors.ray_node import BEGUN, END, Mailbox, Order, do_job, unpack
from mlflow_yolo.studies.executors.worker_process import GRACE_S, WORKER
from mlflow_yolo.tracking.stores.client import one_line

_HEAD = {"node:__internal_head__": 0.001}
_PAUSE_S = 0.2
_LOCAL = "Use address=local, or"


class RayExecutor:
    """Runs jobs on a Ray cluster, as many at once as its nodes have room for.

    Args:
        address: `auto` (the cluster that this machine belongs to), `ray://host:port`, `host:port`, or `local` (one of
            its own on this machine, ended afterwards).
        cpus: Processors that a job takes.
        gpus: GPUs that a job takes; a fraction shares one.
        threads: Threads of each worker; None for as many as processors.
        environment: Variables for the workers, for what must not stand in a job file.
        command: The program that does a job; the job file is its last argument.
        workers: Jobs at once, where that is less than there is room for, or more on a cluster that grows with demand.
    """

    def __init__(
        self,
        *,
        address: str = "auto",
        cpus: float = 1.0,
        gpus: float = 0.0,
        threads: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = WORKER,
        workers: int | None = None,
    ) -> None:
        if cpus < 0 or gpus < 0 or cpus + gpus == 0:
            raise ArgumentError(f"cpus={cpus:g} and gpus={gpus:g} of a trial: neither below 0, and one of them above.")
        self._address = address
        self._cpus, self._gpus = cpus, gpus
        self._threads = threads or max(1, int(cpus))
        self._environment = {**passed_on(os.environ), **(environment or {})}
        self._command = list(command)
        self._workers = workers
        self._jobs: dict[Any, tuple[str, Job]] = {}  # Ray's reference of a task -> its uid and its job
        self._begun: dict[str, str] = {}  # uid -> node
        self._mailbox: Any = None

    def check(self) -> None:
        """Find out, before anything is begun, whether the cluster is there and has room for a job.

        Raises:
            ArgumentError: Ray is not installed, no cluster at the address, or none of its nodes is large enough.
        """
        _import()
        if self._address != "local":
            with connected(self._address, otherwise=_LOCAL):
                self._check_room()

    def run(self, next_job: NextJob) -> Iterator[Event]:
        """Yield what the workers say, until none is left and there is no next job; closing it stops the workers.

        Raises:
            ArgumentError: No cluster at the address, or none of its nodes is large enough.
            WorkError: The cluster was lost.
        """
        ray = _import()
        with connected(self._address, otherwise=_LOCAL):
            self._check_room()
            self._mailbox = ray.remote(num_cpus=0, resources=_HEAD)(Mailbox).remote()
            try:
                while self._start_next(next_job) or self._jobs:
                    yield from self._hear()
            except ray.exceptions.RayError as error:
                raise WorkError(
                    f"the Ray cluster at {self._address} was lost: {one_line(error)}. "
                    f"Start the same command when it is back: it continues the study."
                ) from error
            finally:
                with contextlib.suppress(ray.exceptions.RayError):
                    self._stop()

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Leave a message for a job's worker, which hears it within a second; one that has ended hears nothing."""
        for uid, job in self._jobs.values():
            if job.key == key:
                self._mailbox.tell.remote(uid, dict(message))

    def _start_next(self, next_job: NextJob) -> bool:
        """Start jobs while there is room; return whether one was started."""
        self._wait_for_a_node()
        started = False
        while len(self._jobs) < (self._workers or self._room()) and (job := next_job()):
            self._start(job)
            started = True
        return started

    def _start(self, job: Job) -> None:
        ray = _import()
        task = ray.remote(
            num_cpus=self._cpus, num_gpus=self._gpus, max_retries=0, max_calls=1, scheduling_strategy="SPREAD"
        )(do_job)
        order = Order(
            uid=uuid.uuid4().hex,
            file=str(job.file.absolute()),
            text=job.file.read_text() if job.file.is_file() else "{}",
            command=self._command,
            python=sys.executable,
            threads=self._threads,
            environment=self._environment,
        )
        self._jobs[task.remote(order, self._mailbox)] = (order.uid, job)

    def _hear(self) -> Iterator[Event]:
        """Yield what has been said, then the ends of those jobs that have ended."""
        ray = _import()
        ended, _ = ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=_PAUSE_S)
        keys = {uid: job.key for uid, job in self._jobs.values()}
        for uid, values in ray.get(self._mailbox.heard.remote()):
            if BEGUN in values:
                self._begun[uid] = values[BEGUN]
            elif uid in keys:
                yield Event(keys[uid], "progress", values)
        for reference in ended:
            yield from self._end(reference)

    def _end(self, reference: Any) -> Iterator[Event]:
        """Yield why a job's worker was lost, where it was, and its end."""
        ray = _import()
        uid, job = self._jobs.pop(reference)
        node = self._begun.pop(uid, "its node")
        try:
            code, archive = ray.get(reference)
            if archive is not None:
                unpack(archive, job.file.parent)
        except ray.exceptions.RayTaskError as error:
            yield Event(job.key, "progress", {"error": one_line(error.cause)})
            code = 1
        except ray.exceptions.RayError as error:
            yield Event(job.key, "progress", {"error": f"lost on {node}: {_reason(error)}"})
            code = -signal.SIGKILL
        yield Event(job.key, "ended", {"exit_code": int(code)})

    def _room(self) -> int:
        """Return how many jobs the living nodes hold at once."""
        return sum(self._room_on(node) for node in _nodes())

    def _room_on(self, node: Mapping[str, float]) -> int:
        gpus = node.get("GPU", 0.0)
        counts = [_fit(node.get("CPU", 0.0), self._cpus)] if self._cpus else []
        if self._gpus >= 1.0:
            counts.append(_fit(gpus, self._gpus))
        elif self._gpus:
            counts.append(int(gpus) * _fit(1.0, self._gpus))  # a fraction is of one GPU
        return min(counts)

    def _wait_for_a_node(self) -> None:
        """Wait while every node is lost: the cluster is there, and the study goes on when one joins."""
        said = False
        while self._workers is None and not self._jobs and self._room() == 0:
            if not said:
                print(f"note: no node of the Ray cluster at {self._address} is left; waiting for one", file=sys.stderr)
            said = True
            time.sleep(1.0)

    def _check_room(self) -> None:
        """Raise ArgumentError where no node could hold a job; a cluster that may grow is waited for."""
        if self._room():
            return
        if self._workers is None:
            nodes = ", ".join(f"{node.get('CPU', 0):g} CPU {node.get('GPU', 0):g} GPU" for node in _nodes())
            raise ArgumentError(
                f"cpus={self._cpus:g} and gpus={self._gpus:g} of a trial are more than a node of the cluster has "
                f"({nodes or 'it has none'}). Ask for less, or add nodes; "
                f"give workers= where the cluster adds nodes itself."
            )
        print(f"note: no node of the cluster has {self._cpus:g} CPU {self._gpus:g} GPU yet; waiting", file=sys.stderr)

    def _stop(self) -> None:
        """Ask the workers to close their runs and bring their files back; then end what is left."""
        ray = _import()
        for reference, (uid, _) in self._jobs.items():
            if uid in self._begun:
                self._mailbox.tell.remote(uid, {END: True})
            else:
                ray.cancel(reference)
        if self._jobs:
            ended, late = ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=GRACE_S + 5.0)
            for reference in ended:
                for _ in self._end(reference):
                    pass
            for reference in late:
                ray.cancel(reference, force=True)
        self._jobs.clear()
        ray.kill(self._mailbox)


def _import() -> Any:
    """Return Ray, or say how to do without."""
    return import_ray("executor=ray", otherwise="or use executor=local.")


def _nodes() -> list[Mapping[str, float]]:
    """Return the resources of every living node."""
    return [node["Resources"] for node in _import().nodes() if node["Alive"]]


def _fit(amount: float, wanted: float) -> int:
    return int(amount / wanted + 1e-9)


def _reason(error: Exception) -> str:
    """Return in a few words what Ray says in many lines."""
    reasons = {
        "OutOfMemoryError": "its memory was full",
        "NodeDiedError": "the node is gone",
        "WorkerCrashedError": "its process was killed",
        "TaskCancelledError": "it was cancelled",
    }
    return reasons.get(type(error).__name__) or one_line(error)
