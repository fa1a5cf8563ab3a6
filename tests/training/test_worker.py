"""A training in a process of its own, asked to end in the middle."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo.training.plan import Plan, Stage

pytestmark = pytest.mark.slow


@pytest.fixture
def job_file(small_plan: Plan, job_of: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """Return the file of a job with far too many epochs."""
    plan = replace(small_plan, stages=(Stage(500, (0, 1), 0.01, 0.0),))
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "job.json").write_text(json.dumps(job_of(plan)))
    return tmp_path / "child" / "job.json"


@pytest.fixture
def running(job_file: Path) -> Iterator[Any]:
    """Start a worker and return it after its first epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow_yolo.training.worker", str(job_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    yield process, first
    process.kill()
    process.communicate()


def test_sigterm_closes_the_run_as_interrupted(running: Any, client: MlflowClient, tmp_path: Path) -> None:
    process, first = running
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130  # not communicate(): it closes the standard input, as a dead driver would

    output, errors = process.stdout.read(), process.stderr.read()
    assert (first["epoch"], first["epochs"], first["metric"]) == (1, 500, "metrics/mAP50-95B")
    assert [json.loads(line)["epoch"] for line in output.splitlines()] == list(range(2, len(output.splitlines()) + 2))
    assert errors == ""
    assert "Starting training for 500 epochs" in (tmp_path / "child" / "console.log").read_text()
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.tags["mlflow_yolo.state"]) == ("KILLED", "interrupted")
    assert not (tmp_path / "child" / "result.json").exists()
    assert "images" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_worker_ends_itself_before_it_begins_when_its_driver_is_gone(job_file: Path, client: MlflowClient) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "mlflow_yolo.training.worker", str(job_file)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        timeout=30,
    )

    assert process.returncode == -signal.SIGKILL
    assert client.search_runs(["0"]) == []
