"""A study's trainings on this machine, each in a process of its own.

A worker is told what to do by a job file and tells its progress in JSON lines on its standard output. Its standard
input is a pipe that carries messages to it, and that closes when the driver dies, however it dies: then the worker
ends itself, so that no training is left behind.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_yolo.studies.executors import Event, Job, NextJob

_SCRUBBED = ("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_RUN", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
_GRACE_S = 20.0

WORKER = (sys.executable, "-m", "mlflow_yolo.training.worker")
"""The program that does a training."""


@dataclass
class _Worker:
    job: Job
    process: subprocess.Popen[bytes]
    buffer: bytes = b""


class SubprocessExecutor:
    """Runs jobs in up to `workers` processes at once, each with `threads` threads.

    Args:
        workers: Processes at once.
        threads: Threads of each.
        environment: Variables for the workers on top of this process' own, for what must not stand in a job file.
        command: The program that does a job; the job file is its last argument.
    """

    def __init__(
        self,
        *,
        workers: int,
        threads: int,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._workers = workers
        self._environment = dict(environment or {})
        self._threads = threads
        self._command = list(command)
        self._running: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def run(self, next_job: NextJob) -> Iterator[Event]:
        """Yield what the workers say, until none is left and there is no next job; closing it stops the workers."""
        try:
            while self._start_next(next_job) or self._running:
                for key, _ in self._selector.select(timeout=0.5):
                    yield from self._read(key.data)
        finally:
            self._stop()

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Write a line to a job's standard input; one that is gone hears nothing."""
        for worker in self._running:
            if worker.job.key == key:
                assert worker.process.stdin is not None
                with contextlib.suppress(OSError):
                    worker.process.stdin.write(json.dumps(message).encode() + b"\n")
                    worker.process.stdin.flush()

    def _start_next(self, next_job: NextJob) -> bool:
        """Start jobs while there are free workers; return whether one was started."""
        started = False
        while len(self._running) < self._workers and (job := next_job()):
            self._start(job)
            started = True
        return started

    def _start(self, job: Job) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _SCRUBBED}
        threads = str(self._threads)
        environment |= {
            **self._environment,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
        }
        process = subprocess.Popen(
            [*self._command, str(job.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        worker = _Worker(job, process)
        self._running.append(worker)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)

    def _read(self, worker: _Worker) -> Iterator[Event]:
        """Yield the events in what a worker has written; an empty read means that it has ended."""
        assert worker.process.stdout is not None
        chunk = worker.process.stdout.read()
        if chunk is None:
            return
        worker.buffer += chunk
        *lines, worker.buffer = worker.buffer.split(b"\n")
        for line in lines:
            yield Event(worker.job.key, "progress", json.loads(line))
        if not chunk:
            yield self._ended(worker)

    def _ended(self, worker: _Worker) -> Event:
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        self._running.remove(worker)
        code = worker.process.wait()
        _close(worker.process)
        return Event(worker.job.key, "ended", {"exit_code": code})

    def _stop(self) -> None:
        """Ask the workers to close their runs, then end those that do not."""
        for worker in self._running:
            worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for worker in self._running:
            try:
                worker.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _close(worker.process)
        self._running.clear()
        self._selector.close()


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
