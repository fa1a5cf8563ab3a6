"""How long one epoch's values block the training: milliseconds per epoch for 1,000, 10,000 and 100,000 values.

A thread stands for the trainer: it logs an epoch's values, in one call or in a hundred, and waits a moment, as a
trainer does whose device computes. Measured is the time from the first call to the return of the last, with a server
that takes everything (`up`) and one that does not answer (`down`). Nothing else of an epoch is measured: what the
writing and sending threads cost is work beside the training, reported as `background_cpu_ms`.

Target: at most 10 ms for 10,000 values, up or down, in one call or in a hundred; the ratio is the worst of the four.
"""

import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.accepting_server import accepting_server
from benchmarks.outcome import Outcome, Target, finish, read_arguments
from mlflow_yolo.tracking.run import TrackedRun, open_run

LIMIT_MS = 10.0
N_EPOCHS = 15
PAUSE_S = 0.4
SHAPES = {
    "1k values, 1 call": (1, 1_000),
    "10k values, 1 call": (1, 10_000),
    "10k values, 100 calls": (100, 100),
    "100k values, 1 call": (1, 100_000),
}
JUDGED = tuple(name for name in SHAPES if name.startswith("10k"))


def main() -> int:
    """Measure all shapes, up and down, interleaved, and print the outcome."""
    quick = read_arguments(__doc__).quick
    n_epochs = 2 if quick else N_EPOCHS
    blocked: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, accepting_server() as uri:
        runs = {
            "up": open_run(Path(folder) / "up", tracking_uri=uri, recover=False),
            "down": open_run(Path(folder) / "down", tracking_uri=_dead_address(), recover=False),
        }
        background = _measure(runs, n_epochs, blocked)
        for run in runs.values():
            run.close(timeout_s=5.0)
    medians = {name: statistics.median(values) for name, values in blocked.items()}
    figures = {
        "blocked_ms": {name: _summary(values) for name, values in blocked.items()},
        "background_cpu_ms": background,
        "epochs": n_epochs,
    }
    targets = [Target(f"{s}, server {w}, ms", medians[f"{s}, {w}"], LIMIT_MS) for s in JUDGED for w in ("up", "down")]
    worst = max(target.value or 0.0 for target in targets)
    judged = [] if quick else targets
    return finish(Outcome("handover", ratio=worst / LIMIT_MS, target=1.0, targets=judged, figures=figures))


def _measure(runs: Mapping[str, TrackedRun], n_epochs: int, blocked: dict[str, list[float]]) -> dict[str, float]:
    """Fill `blocked` with milliseconds per epoch; return the CPU milliseconds that other threads took per epoch."""
    background: dict[str, list[float]] = {}
    for epoch in range(n_epochs):
        for shape, (n_calls, n_keys) in SHAPES.items():
            calls = [_values(call, n_keys, epoch) for call in range(n_calls)]
            for state, run in runs.items():
                cpu_ms = 1e3 * (time.process_time() - time.thread_time())
                start = time.perf_counter()
                for values in calls:
                    run.log_metrics(values, step=epoch)
                blocked.setdefault(f"{shape}, {state}", []).append(1e3 * (time.perf_counter() - start))
                time.sleep(PAUSE_S)
                run.flush(timeout_s=30.0 if state == "up" else 0.0)
                spent_ms = 1e3 * (time.process_time() - time.thread_time()) - cpu_ms
                background.setdefault(f"{shape}, {state}", []).append(spent_ms)
    return {name: statistics.median(values) for name, values in background.items()}


def _values(call: int, n_keys: int, epoch: int) -> dict[str, float]:
    """Return values under keys as long as ours; a bracket makes sanitising do something."""
    return {f"stats/gradient_l2/{call:03d}-C3k2.{i}(B)": epoch + i / 7 for i in range(n_keys)}


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _dead_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
