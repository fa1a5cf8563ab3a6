"""One worker: a program that does the job of a file, speaks in JSON lines and hears JSON lines.

What it says comes on its standard output, what it hears on its standard input. That is a pipe, so it closes when the
process that started the worker dies, however it dies: then the worker ends itself, and no training is left behind.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_SCRUBBED = ("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_RUN", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
GRACE_S = 20.0
"""How long a worker may take to close its run."""

WORKER = (sys.executable, "-m", "mlflow_yolo.training.worker")
"""The program that does a training."""


class WorkerProcess:
    """A running worker.

    Args:
        file: The job file, the last argument of the program.
        command: The program.
        threads: Threads of its computing libraries.
        environment: Variables on top of this process' own.
        gpu: What it sees as CUDA_VISIBLE_DEVICES; None leaves that as it is.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(
        self,
        file: Path,
        *,
        command: Sequence[str],
        threads: int,
        environment: Mapping[str, str],
        gpu: str | None = None,
    ) -> None:
        self.gpu = gpu
        self._process = subprocess.Popen(
            [*command, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=_environment(threads, environment, gpu),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._unread = b""

    def fileno(self) -> int:
        """Return the descriptor that can be read when the worker has said something or has ended."""
        return self._stdout.fileno()

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what the worker has said since it was last asked, and whether that was its last; never waits."""
        ended = self._is_gone()  # asked first: what it said before it went is in the pipe by now
        chunk = self._stdout.read()
        *lines, self._unread = (self._unread + (chunk or b"")).split(b"\n")
        return [values for line in lines if (values := _values(line)) is not None], ended or chunk == b""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Write a line to the worker's standard input; one that is gone or does not read misses it."""
        with contextlib.suppress(OSError):
            os.write(self._stdin.fileno(), json.dumps(message).encode() + b"\n")

    def ask_to_end(self) -> None:
        """Send SIGTERM, upon which a worker closes its run."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, *, grace_s: float = GRACE_S) -> int:
        """Wait until the worker is gone, `grace_s` seconds at most; return its exit code, -9 where it had to be killed.

        What is left of its own children goes with it: a data loader would go on holding the GPU.
        """
        deadline = time.monotonic() + grace_s
        while not self._is_gone() and time.monotonic() < deadline:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # before `wait`: until then the number is still this worker's
        code = self._process.wait()
        self._stdin.close()
        self._stdout.close()
        return code

    def _is_gone(self) -> bool:
        """Return whether the process has exited, even where a child of it still holds its output open."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_all(workers: Iterable[WorkerProcess]) -> None:
    """Ask workers to close their runs, then end those that have not within `GRACE_S` seconds."""
    asked = list(workers)
    for worker in asked:
        worker.ask_to_end()
    deadline = time.monotonic() + GRACE_S
    for worker in asked:
        worker.end(grace_s=max(0.1, deadline - time.monotonic()))


def _environment(threads: int, on_top: Mapping[str, str], gpu: str | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _SCRUBBED}
    gpus = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**inherited, **on_top, **gpus, **limits, "PYTHONUNBUFFERED": "1"}


def _values(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None for what something else has printed before the worker took over its output."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
