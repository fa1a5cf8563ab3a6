"""A search on a Ray cluster of two nodes, with PostgreSQL behind it and behind MLflow; node and driver are killed.

Whatever is killed, the same command ends with every trial counted once: told once to Optuna, FINISHED once in MLflow,
with one result on disk, and after at most three attempts that were lost by themselves.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import optuna
import psutil
import pytest
import sqlalchemy
from mlflow import MlflowClient

from benchmarks import postgres, ray_cluster
from benchmarks.ingest import tracking_server

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
TIMEOUT_S = 1200.0


@dataclass(frozen=True)
class Place:
    """Where a search runs and is kept.

    Attributes:
        cluster: The Ray cluster.
        tracking_uri: An MLflow server before PostgreSQL.
        storage: URL of a PostgreSQL database for trials.
    """

    cluster: ray_cluster.Cluster
    tracking_uri: str
    storage: str


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place | None]:
    if postgres.missing_part() or ray_cluster.missing_part():
        yield None
        return
    folder = tmp_path_factory.mktemp("server")
    with postgres.cluster() as database, tracking_server(database, folder) as uri, ray_cluster.cluster() as cluster:
        engine = sqlalchemy.create_engine(database, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CREATE DATABASE studies")
        engine.dispose()
        yield Place(cluster, uri, f"{database.rpartition('/')[0]}/studies")


@pytest.fixture
def place(parts: Place | None, missing: Callable[[str, str], NoReturn]) -> Place:
    """Return the cluster and the two databases."""
    if parts is None:
        missing("Ray or PostgreSQL", postgres.missing_part() or ray_cluster.missing_part())
    return parts


@dataclass(frozen=True)
class Search:
    """A search that can be started again and again with the same command."""

    place: Place
    folder: Path
    name: str
    words: tuple[str, ...]
    n_trials: int

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the driver; its URL of the storage is in the environment, where nothing logs it."""
        environment = {**os.environ, "MLFLOW_YOLO_STORAGE": self.place.storage}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mlflow_yolo", "tune", *self.words], stdout=log, stderr=log, env=environment
            )

    def finish(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for the driver's end, which is to be a good one."""
        code = process.wait(timeout=TIMEOUT_S)
        assert code == 0, (self.folder / f"{self.name}.log").read_text()[-4000:]

    def trainings(self) -> int:
        """Return how many attempts have begun to log; those train by now or have ended."""
        return len(list((self.folder / "runs" / self.name).glob("trial-*/attempt-*/run.json")))

    def results(self) -> int:
        """Return how many trials have a result."""
        return len(list((self.folder / "runs" / self.name).glob("trial-*/attempt-*/result.json")))

    def check(self) -> None:
        """Count every trial, in the three places that count them."""
        folder = self.folder / "runs" / self.name
        study = optuna.load_study(study_name=self.name, storage=self.place.storage)
        states = Counter(trial.state.name for trial in study.trials)
        finished = [path.parent for path in folder.glob("trial-*/attempt-*/result.json")]
        runs = self._runs()
        numbers = [run.data.tags["optuna.number"] for run in runs if run.info.status == "FINISHED"]
        assert states == {"COMPLETE": self.n_trials}
        assert len(finished) == len({path.parent for path in finished}) == self.n_trials
        assert sorted(numbers, key=int) == [str(number) for number in range(self.n_trials)]
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
        attempts = Counter(run.data.tags["optuna.number"] for run in runs)
        for number in range(self.n_trials):
            lost = list(folder.glob(f"trial-{number:04d}/attempt-*/lost.json"))
            assert len(lost) < 3
            assert attempts[str(number)] <= len(list(folder.glob(f"trial-{number:04d}/attempt-*")))
        for trial in study.trials:
            (path,) = [path for path in finished if path.parent.name == f"trial-{trial.number:04d}"]
            assert trial.values == [json.loads((path / "result.json").read_text())["values"]["final/mAP50-95"]]

    def _runs(self) -> list[Any]:
        client = MlflowClient(tracking_uri=self.place.tracking_uri)
        found = client.search_runs(["0"], f"tags.`optuna.study` = '{self.name}'")
        return [run for run in found if "optuna.number" in run.data.tags]


def search_of(place: Place, folder: Path, *, name: str, n_trials: int, data: Path, model: Path) -> Search:
    words = {
        **{"data": data, "model": model, "space": "lr0=1e-3:1e-1:log,momentum=0.6:0.95", "sampler": "random"},
        **{"epochs": 4, "imgsz": 64, "batch": 4, "lr0": 0.01, "optimizer": "AdamW", "statistics": "off", "maps": "off"},
        **{"trials": n_trials, "confirm": 0, "advice": "false", "pruner": "none", "plots": "false"},
        **{"executor": "ray", "address": place.cluster.address, "threads": 1, "study": name},
        **{"tracking-uri": place.tracking_uri, "output": folder / "runs", "workers": 2},
    }
    flat = tuple(str(word) for name, value in words.items() for word in (f"--{name}", value))
    return Search(place, folder, name, flat, n_trials)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait for a condition while a driver runs."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.poll() is None, "the driver has ended before that"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a driver and wait until its workers are gone, which nobody tells to go."""
    process.kill()
    process.wait()


def workers_of(folder: Path) -> list[int]:
    """Return the processes that work on jobs below a folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "mlflow_yolo.studies.tuning.worker" in words and str(folder) in words[-1]:
            found.append(process.info["pid"])
    return found


def test_a_search_whose_node_and_then_driver_is_killed_counts_every_trial_once(
    place: Place, small_data: Path, small_model: Path, tmp_path: Path
) -> None:
    search = search_of(place, tmp_path, name="node-and-driver", n_trials=4, data=small_data, model=small_model)

    driver = search.start()
    wait_until(lambda: search.trainings() >= 2, driver)
    place.cluster.kill_node()
    place.cluster.add_node()
    wait_until(lambda: search.results() >= 1 and len(workers_of(tmp_path)) >= 1, driver)
    kill(driver)
    again = search.start()
    search.finish(again)

    search.check()
    assert any(tmp_path.glob("runs/node-and-driver/trial-*/attempt-2"))
    assert workers_of(tmp_path) == []


def test_a_search_killed_at_random_moments_counts_every_trial_once(
    place: Place, small_data: Path, small_model: Path, tmp_path: Path, campaign_count: int
) -> None:
    if campaign_count < 10:
        pytest.skip("takes minutes a search: make campaign")
    dice = random.Random(SEED)
    for number in range(campaign_count // 10):
        name = f"random-{number}"
        search = search_of(place, tmp_path, name=name, n_trials=4, data=small_data, model=small_model)
        for _ in range(3):
            driver = search.start()
            with_node = dice.random() < 0.5
            wait_s = dice.uniform(1.0, 25.0)
            print(f"{name}: {'node' if with_node else 'driver'} killed after {wait_s:.1f} s", file=sys.stderr)
            time.sleep(wait_s)
            if with_node:
                place.cluster.kill_node()
                place.cluster.add_node()
                time.sleep(dice.uniform(0.0, 10.0))
            kill(driver)
        search.finish(search.start())
        search.check()
