"""One run against a real tracking server that goes away in the middle and comes back."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.tracking.delivery.replay import replay
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.addresses import answers


@pytest.fixture
def start_server(store: str, tmp_path: Path) -> Iterator[Callable[[], "tuple[subprocess.Popen[bytes], str]"]]:
    """Starts `mlflow server` over the test's store, always on the same port."""
    started: list[subprocess.Popen[bytes]] = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start() -> "tuple[subprocess.Popen[bytes], str]":
        options = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *options]
        log = (tmp_path / "server.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        started.append(process)
        uri = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not answers(uri):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return process, uri

    yield start
    for process in started:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server together with its workers."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_has_everything_once(
    start_server: Callable[[], "tuple[subprocess.Popen[bytes], str]"],
    open_tracked: Callable[..., TrackedRun],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server, uri = start_server()
    run = open_tracked(tracking_uri=uri, experiment="over http")
    run.log_metrics({"a": 0, "nan": math.nan, "inf": -math.inf}, step=0, timestamp_ms=1000)
    run.log_image("k/0", np.zeros((8, 8, 3), np.uint8), step=0)
    assert run.flush(60).reason == ""
    stop(server)
    while answers(uri):  # its workers end a moment later
        time.sleep(0.05)

    run.log_metrics({"a": 1}, step=1, timestamp_ms=1001)
    run.log_text("late", "late.txt")
    delivery = run.close(timeout_s=20)
    assert delivery.n_pending == 3
    assert f"{uri} does not answer" in delivery.reason

    start_server()
    assert (replay(tmp_path).n_sent_runs, replay(tmp_path).n_pending) == (1, 0)
    client = MlflowClient(uri)
    assert run.run_id is not None
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    history = [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.run_id, "a")]
    assert history == [(0, 1000, 0.0), (1, 1001, 1.0)]
    assert math.isnan(found.data.metrics["nan"])
    assert found.data.metrics["inf"] < -1e308
    names = [file.path for file in client.list_artifacts(run.run_id, "images")]
    assert len(names) == 2
    assert len({file.path for file in client.list_artifacts(run.run_id)}) == 2
    assert capfd.readouterr().out == ""
