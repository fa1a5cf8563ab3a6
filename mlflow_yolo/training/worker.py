"""A training in a process of its own: `python -m mlflow_yolo.training.worker job.json`.

Standard output carries one JSON line per epoch to the driver, standard input what the driver says, until it is gone;
everything else that is printed goes to `console.log` beside the job file. Exit codes: 0 finished, 1 failed,
130 interrupted.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_yolo.training.job import Report, Work

MakeWork = Callable[[Mapping[str, Any], Path], "Work"]
"""Makes the work of a job in its directory."""

Hear = Callable[[bytes], None]


def main(job_file: str, *, make_work: MakeWork | None = None, hear: Hear | None = None) -> int:
    """Do the work that a job file describes, and say how it ended.

    Args:
        job_file: See `job.run_job`.
        make_work: What is done, None for a training.
        hear: Called by another thread with every line that the driver writes.
    """

    def do(job: Mapping[str, Any], directory: Path, report: "Report") -> int:
        from mlflow_yolo.training.job import run_job

        return run_job(job, directory=directory, report=report, work=make_work(job, directory) if make_work else None)

    return serve(job_file, do, hear=hear)


def serve(job_file: str, do: Callable[[Mapping[str, Any], Path, "Report"], int], *, hear: Hear | None = None) -> int:
    """Be a worker: do a job while the driver lives, tell it how it goes, and return the exit code.

    Args:
        job_file: The job, as JSON.
        do: Does it; called with the job, its directory, and what the driver is told through.
        hear: Called by another thread with every line that the driver writes.
    """
    job_path = Path(job_file).resolve()
    events = _redirect(job_path.parent / "console.log")
    threading.Thread(target=_die_with_driver, args=(hear,), name="die-with-driver", daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)

    def report(values: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(events, json.dumps(values).encode() + b"\n")

    return do(json.loads(job_path.read_text()), job_path.parent, report)


def _redirect(log: Path) -> int:
    """Send standard output and error to a file; return a descriptor of the former standard output."""
    events = os.dup(1)
    console = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(console, 1)
    os.dup2(console, 2)
    os.close(console)
    return events


def _die_with_driver(hear: Hear | None = None) -> None:
    """End this process and its children as soon as the driver is gone: then our standard input closes."""
    rest = b""
    while chunk := os.read(0, 1024):
        *lines, rest = (rest + chunk).split(b"\n")
        if hear is not None:
            for line in lines:
                hear(line)
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
