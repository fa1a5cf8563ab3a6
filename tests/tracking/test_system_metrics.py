"""System metrics under MLflow's names, in a run that MLflow's own sampler does not know."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.tracking.delivery.journal import journal_path, read_all
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.system_metrics import is_wanted, sampling_interval_s, system_metrics


def test_samples_arrive_under_mlflows_names(
    open_tracked: Callable[..., TrackedRun], client: MlflowClient, tmp_path: Path
) -> None:
    run, journal = open_tracked(), journal_path(tmp_path / "run")
    with system_metrics(run, interval_s=0.05, enabled=True):
        deadline = time.monotonic() + 10
        while sum(e.record["type"] == "metrics" for e in read_all(journal)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    run.close()
    assert run.run_id is not None
    found = client.get_run(run.run_id).data.metrics
    assert {"system/cpu_utilization_percentage", "system/disk_usage_percentage"} <= set(found)
    steps = [metric.step for metric in client.get_metric_history(run.run_id, "system/system_memory_usage_percentage")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
    assert not any(thread.name == "mlflow-yolo-system" for thread in threading.enumerate())


def test_nothing_is_sampled_unless_asked(open_tracked: Callable[..., TrackedRun]) -> None:
    with system_metrics(open_tracked()):
        assert not any(thread.name == "mlflow-yolo-system" for thread in threading.enumerate())


@pytest.mark.parametrize(("value", "wanted"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_mlflows_own_switch_asks_for_them(value: str, *, wanted: bool) -> None:
    assert is_wanted({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": value}) is wanted


@pytest.mark.parametrize(("value", "interval_s"), [("2.5", 2.5), ("", 10.0), ("often", 10.0), ("-1", 10.0)])
def test_the_interval_is_mlflows_or_ten_seconds(value: str, interval_s: float) -> None:
    assert sampling_interval_s({"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": value}) == interval_s
