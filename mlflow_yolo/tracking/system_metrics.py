"""MLflow's system metrics (`system/…`) for a tracked run: MLflow's own sampler needs its fluent run and the network.

MLflow's monitors do the measuring, so names and units are those of its System metrics tab.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlflow_yolo.tracking.run import TrackedRun

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

DEFAULT_INTERVAL_S = 10.0


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING` asks for system metrics."""
    return environment.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in ("true", "1")


def sampling_interval_s(environment: Mapping[str, str] = os.environ) -> float:
    """Return `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` in seconds, 10 where it is absent or no positive number."""
    try:
        interval_s = float(environment.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", ""))
    except ValueError:
        return DEFAULT_INTERVAL_S
    return interval_s if interval_s > 0 else DEFAULT_INTERVAL_S


@contextlib.contextmanager
def system_metrics(run: TrackedRun, *, interval_s: float | None = None, enabled: bool | None = None) -> Iterator[None]:
    """Sample CPU, memory, disk, network and NVIDIA GPUs into `run` while the block runs.

    Args:
        run: Where the values go.
        interval_s: Seconds between samples; default from the environment, else 10.
        enabled: Whether to sample; default what the environment asks for.
    """
    if not (is_wanted() if enabled is None else enabled):
        yield
        return
    stop = threading.Event()
    interval_s = sampling_interval_s() if interval_s is None else interval_s
    thread = threading.Thread(target=_sample, args=(run, interval_s, stop), name="mlflow-yolo-system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=1.0)


def _sample(run: TrackedRun, interval_s: float, stop: threading.Event) -> None:
    monitors = _monitors()
    step = 0
    while not stop.wait(interval_s):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        run.log_metrics(values, step=step)
        step += 1


def _monitors() -> "list[BaseMetricsMonitor]":
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no NVIDIA library or no GPU
        monitors.append(GPUMonitor())
    return monitors
