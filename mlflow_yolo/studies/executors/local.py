"""A study's jobs on this machine, each in a process of its own."""

import selectors
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_yolo.studies.executors import Event, Job, NextJob
from mlflow_yolo.studies.executors.worker_process import WORKER, WorkerProcess, end_all


@dataclass(frozen=True)
class _Running:
    key: str
    gpu: str | None
    process: WorkerProcess


class SubprocessExecutor:
    """Runs jobs in up to `workers` processes at once, each with `threads` threads.

    Args:
        workers: Processes at once.
        threads: Threads of each.
        environment: Variables for the workers on top of this process' own, for what must not stand in a job file.
        command: The program that does a job; the job file is its last argument.
        gpus: What a worker may see as CUDA_VISIBLE_DEVICES, `"0"` or `"0,1"`; each gets the one that the fewest others
            have, so there may be more workers than GPUs. Where there are none, workers see what this process sees.
    """

    def __init__(
        self,
        *,
        workers: int,
        threads: int,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = WORKER,
        gpus: Sequence[str] = (),
    ) -> None:
        self._workers = workers
        self._threads = threads
        self._environment = dict(environment or {})
        self._command = list(command)
        self._gpus = list(gpus)
        self._running: list[_Running] = []
        self._selector = selectors.DefaultSelector()

    def run(self, next_job: NextJob) -> Iterator[Event]:
        """Yield what the workers say, until none is left and there is no next job; closing it stops the workers."""
        try:
            while self._start_next(next_job) or self._running:
                self._selector.select(timeout=0.5)
                for one in list(self._running):
                    yield from self._hear(one)
        finally:
            end_all(one.process for one in self._running)
            self._running.clear()
            self._selector.close()

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Write a line to a job's standard input; one that is gone hears nothing."""
        for one in self._running:
            if one.key == key:
                one.process.tell(message)

    def _start_next(self, next_job: NextJob) -> bool:
        """Start jobs while there are free workers; return whether one was started."""
        started = False
        while len(self._running) < self._workers and (job := next_job()):
            self._start(job)
            started = True
        return started

    def _start(self, job: Job) -> None:
        gpu = self._free_gpu()
        process = WorkerProcess(
            job.file, command=self._command, threads=self._threads, environment=self._environment, gpu=gpu
        )
        self._running.append(_Running(job.key, gpu, process))
        self._selector.register(process, selectors.EVENT_READ)

    def _free_gpu(self) -> str | None:
        """Return the GPU with the fewest workers, None where none was named."""
        taken = Counter(one.gpu for one in self._running)
        return min(self._gpus, key=lambda gpu: taken[gpu], default=None)

    def _hear(self, one: _Running) -> Iterator[Event]:
        """Yield the events in what a worker has said."""
        said, was_last = one.process.read()
        for values in said:
            yield Event(one.key, "progress", values)
        if was_last:
            self._selector.unregister(one.process)
            self._running.remove(one)
            yield Event(one.key, "ended", {"exit_code": one.process.end()})
