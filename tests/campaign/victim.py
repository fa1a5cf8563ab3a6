"""A process that logs until it is killed, and notes on disk what it has logged: python victim.py DIRECTORY URI LEDGER.

Every line of the ledger is [time, kind, ...] and is synced to the disk after the call that it notes has returned. The
times are those of the monotonic clock, which all processes of a machine share.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.tracking.run import TrackedRun, open_run

Note = Callable[..., None]


def main(directory: Path, uri: str, ledger: Path) -> None:
    """Log metrics all the time, and an image, a table and a file now and then."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: str, *what: Any) -> None:
        os.write(descriptor, (json.dumps([time.monotonic(), kind, *what]) + "\n").encode())
        os.fsync(descriptor)

    run = open_run(directory, tracking_uri=uri, experiment="campaign", recover=False)
    note("open", run.uid)
    dice, step = random.Random(run.uid), 0
    while True:
        _log_metrics(run, note, step, n=dice.choice((1, 20, 700)))
        if step % 20 == 5:
            _log_artifacts(run, note, step)
        time.sleep(dice.uniform(0.0, 0.04))
        step += 1


def _log_metrics(run: TrackedRun, note: Note, step: int, *, n: int) -> None:
    t = int(time.time() * 1000)
    run.log_metrics({f"m/{i:03d}": step + i / 1024 for i in range(n)}, step=step, timestamp_ms=t)
    note("metrics", step, t, n)


def _log_artifacts(run: TrackedRun, note: Note, step: int) -> None:
    run.log_image("picture", np.full((64, 64, 3), step % 256, np.uint8), step=step)
    note("image", step)
    run.log_text(f"step\n{step}\n", f"tables/{step:06d}.csv")
    note("table", f"{step:06d}.csv", f"step\n{step}\n")
    file = run.directory / f"{step:06d}.bin"
    file.write_bytes(step.to_bytes(4, "big") * 100)
    run.log_file(file, "files")
    note("file", file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
