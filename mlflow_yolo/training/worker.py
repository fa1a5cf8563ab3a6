"""A training in a process of its own: `python -m mlflow_yolo.training.worker job.json`.

Standard output carries one JSON line per epoch to the driver; everything else that is printed goes to `console.log`
beside the job file. Exit codes: 0 finished, 1 failed, 130 interrupted.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any


def main(job_file: str) -> int:
    """Run the training that a job file describes, and say how it ended."""
    job_path = Path(job_file).resolve()
    events = _redirect(job_path.parent / "console.log")
    threading.Thread(target=_die_with_driver, name="die-with-driver", daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    job = json.loads(job_path.read_text())

    def report(values: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(events, json.dumps(values).encode() + b"\n")

    from mlflow_yolo.training.job import run_job

    return run_job(job, directory=job_path.parent, report=report)


def _redirect(log: Path) -> int:
    """Send standard output and error to a file; return a descriptor of the former standard output."""
    events = os.dup(1)
    console = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(console, 1)
    os.dup2(console, 2)
    os.close(console)
    return events


def _die_with_driver() -> None:
    """End this process and its children as soon as the driver is gone: then our standard input closes."""
    while os.read(0, 1024):
        pass
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
