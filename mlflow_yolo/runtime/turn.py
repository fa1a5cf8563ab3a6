"""Starts the process of one turn, waits for its answer for so long, and leaves nothing behind."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

_WORKER = (sys.executable, "-m", "mlflow_yolo.runtime.worker")
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def run_turn(job: Mapping[str, Any], *, time_limit_s: float) -> dict[str, Any]:
    """Return the answer of a fresh worker to `job`, or {"error": why there is none}.

    The worker is killed, with its children, when it has answered: what libraries do while a process ends is no part
    of the measurement. It is killed as well when time is up and when this process is interrupted, and it ends itself
    when this process is killed.

    Args:
        job: See `runtime.worker.take_turn`.
        time_limit_s: How long the worker may take, from its start to its answer.
    """
    with tempfile.TemporaryFile() as console:
        process = subprocess.Popen(
            _WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
            env=_environment(job["threads"]),
            start_new_session=True,  # Ctrl-C on the terminal is for the driver alone
        )
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            line = _answer(process, time.monotonic() + time_limit_s)
            if line is None:
                return {"error": f"no answer within {time_limit_s:g} s"}
            if line:
                return dict(json.loads(line))
            return {"error": _ending(process.wait(), console)}
        finally:
            _end(process)


def _environment(threads: int) -> dict[str, str]:
    """Return this process' environment with the number of threads where libraries look for it when they load."""
    return {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def _answer(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """Return the line that a worker writes, empty where it ends without one, None at the deadline."""
    assert process.stdout is not None
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return b""
            line += chunk
    return line


def _ending(code: int, console: IO[bytes]) -> str:
    """Return how a worker ended that gave no answer, with the last line it printed."""
    console.seek(0)
    lines = console.read().decode(errors="replace").strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the process ended with {how}" + (f": {lines[-1].strip()}" if lines else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
