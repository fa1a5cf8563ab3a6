"""A freeze ablation killed with -9 at random moments and started again ends as if nothing had happened.

`CAMPAIGN_COUNT` sets how often it is killed (`make campaign`); a plain test run kills it a few times.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
CHILDREN = {(0, 0), (10, 0), (0, 1), (10, 1)}
LATEST_S = 30.0
MODES = ("driver", "worker", "group")


@dataclass(frozen=True)
class Place:
    """Where a study writes in this test."""

    folder: Path
    data: Path
    model: Path
    repository: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": self.uri}

    def settings(self) -> dict[str, str]:
        """Return the study's parameters: two configurations, two seeds, one epoch of 64-pixel images."""
        return {
            "data": str(self.data),
            "model": str(self.model),
            "freeze": "0,10",
            "seeds": "0,1",
            "epochs": "1",
            "imgsz": "64",
            "batch": "4",
            "workers": "2",
            "study": "killed",
            "output": str(self.folder / "runs"),
        }

    def command(self) -> list[str]:
        options = [word for name, value in self.settings().items() for word in (f"--{name}", value)]
        return [sys.executable, "-m", "mlflow_yolo", "freeze-ablation", *options, "--plots", "false"]

    def project_command(self) -> list[str]:
        parameters = [word for name, value in self.settings().items() for word in ("-P", f"{name}={value}")]
        run = [sys.executable, "-m", "mlflow", "run", str(self.repository), "-e", "freeze_ablation"]
        return [*run, "--env-manager", "local", *parameters, "-P", "plots=false"]


@pytest.fixture
def place(tmp_path: Path, small_data: Path, small_model: Path, repository: Path) -> Place:
    return Place(tmp_path, small_data, small_model, repository)


def test_the_command_survives_kills_at_random_moments(place: Place, campaign_count: int) -> None:
    log = _kill_and_restart(place, place.command(), campaign_count, random.Random(SEED))

    _check_outcome(place, log)


def test_mlflow_run_survives_kills_at_random_moments(place: Place, campaign_count: int) -> None:
    # MLflow itself makes its store when `mlflow run` starts; a kill then is MLflow's to survive, so it exists already.
    subprocess.run([sys.executable, "-m", "mlflow_yolo", "doctor", "--init"], env=place.environment, check=True)

    log = _kill_and_restart(place, place.project_command(), campaign_count, random.Random(SEED + 1))

    _check_outcome(place, log)


def _kill_and_restart(place: Place, command: Sequence[str], count: int, dice: random.Random) -> str:
    """Start the command again and again, killing it `count` times; return what the last, undisturbed start printed."""
    killed = 0
    while killed < count:
        process = _start(place, command)
        mode, after_s = dice.choice(MODES), dice.uniform(0.5, LATEST_S)
        ended = _wait(process, after_s)
        if not ended:
            _kill(process, mode)
        process.communicate()
        killed += 1
        print(f"kill {killed}/{count}: {mode} after {after_s:.1f} s{' (had ended)' if ended else ''}", file=sys.stderr)
    last = _start(place, command)
    output, _ = last.communicate(timeout=900)
    assert last.returncode == 0, output
    return output


def _start(place: Place, command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait, reading nothing; return whether the process ended by itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return True
        time.sleep(0.05)
    return False


def _kill(process: subprocess.Popen[str], mode: str) -> None:
    """Kill -9 the driver alone, one worker, or everything that was started."""
    family = psutil.Process(process.pid).children(recursive=True)
    drivers = [p for p in [psutil.Process(process.pid), *family] if _runs(p, "freeze-ablation")]
    workers = [p for p in family if _runs(p, "mlflow_yolo.training.worker")]
    victims = {"driver": drivers[-1:], "worker": workers[:1], "group": [*family]}[mode] or [psutil.Process(process.pid)]
    for victim in victims:
        _end(victim)
    if mode == "group":
        _end(psutil.Process(process.pid))
    if mode == "worker" and workers:
        # A dead worker is a failed training; the driver goes on with the others, until it is killed as well.
        _wait(process, 3.0)
        _kill(process, "group") if process.poll() is None else None


def _runs(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in part for part in process.cmdline())
    except psutil.Error:
        return False


def _end(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def _check_outcome(place: Place, log: str) -> None:
    """One parent, exactly four finished children, nothing running, one table that equals the children's values."""
    runs = MlflowClient(tracking_uri=place.uri).search_runs(["0"], max_results=1000)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    finished = [run for run in children if run.info.status == "FINISHED"]

    assert sorted(_configuration(run) for run in finished) == sorted(CHILDREN)
    assert len({run.data.tags["mlflow.parentRunId"] for run in children}) == 1
    parent = next(run for run in runs if run.info.run_id == children[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING" and _is_ours(run, parent)]
    for run in children:
        if run.info.status == "KILLED":
            assert run.data.tags["mlflow_yolo.state"] == "interrupted"
    assert "test mAP50-95" in log
    _check_table(place, parent, finished)


def _check_table(place: Place, parent: Run, finished: Sequence[Run]) -> None:
    """The parent's table equals an independent reading of the children."""
    artifact = MlflowClient(tracking_uri=place.uri).download_artifacts(
        parent.info.run_id, "table.csv", str(place.folder)
    )
    table = pd.read_csv(artifact).set_index("freeze")["test/mAP50-95"]
    for freeze in (0, 10):
        scores = [run.data.metrics["test/mAP50-95"] for run in finished if _configuration(run)[0] == freeze]
        assert table.loc[freeze] == pytest.approx(sum(scores) / len(scores), abs=1e-12)
    client = MlflowClient(tracking_uri=place.uri)
    steps = list(range(1, int(place.settings()["epochs"]) + 1))
    for run in finished:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "metrics/mAP50-95B")] == steps


def _configuration(run: Run) -> tuple[int, int]:
    return int(run.data.params["freeze"]), int(run.data.params["seed"])


def _is_ours(run: Run, parent: Run) -> bool:
    return run.info.run_id == parent.info.run_id or "mlflow.parentRunId" in run.data.tags
