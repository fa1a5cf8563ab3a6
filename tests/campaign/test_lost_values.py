"""Processes killed with -9 at random moments, and servers too: what they had logged a second before is in the store.

`CAMPAIGN_COUNT` sets how many processes are killed (`make campaign`); a plain test run kills a few. The victim writes a
ledger of what it has logged; the store is read with plain SQL and directory listings, not through MLflow.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.tracking.delivery.replay import replay
from mlflow_yolo.tracking.run import open_run
from mlflow_yolo.tracking.stores.addresses import responds

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
SECOND = 1.0


@dataclass
class Store:
    """A SQLite store, alone or behind an `mlflow server` that can be killed and started again."""

    folder: Path
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.port else f"sqlite:///{self.database}"

    def start(self) -> None:
        options = ["--backend-store-uri", f"sqlite:///{self.database}", "--workers", "1", "--port", str(self.port)]
        options += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options], stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while not responds(self.uri):
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def direct(store: str, tmp_path: Path) -> Store:
    """A store that the victims open themselves."""
    return Store(tmp_path)


@pytest.fixture
def served(store: str, tmp_path: Path) -> Iterator[Store]:
    """A store behind a server, which is running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Store(tmp_path, port=int(free.getsockname()[1]))
    made.start()
    made.wait()
    yield made
    made.kill()


@dataclass
class Ledger:
    """What a victim has noted.

    Attributes:
        uid: Its run; empty if it was killed before it had one.
        metrics: (key, step, time, value) of what it logged.
        images: Steps of its images.
        tables: Content of its tables by name.
        files: Names of its files.
    """

    uid: str = ""
    metrics: Counter[tuple[str, int, int, float]] = field(default_factory=Counter)
    images: set[int] = field(default_factory=set)
    tables: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path, *, until: float = float("inf")) -> "Ledger":
        """Return what was noted before `until` (monotonic clock); a torn last line is not."""
        ledger = cls()
        for line in path.read_text().split("\n")[:-1] if path.exists() else []:
            at, kind, *what = json.loads(line)
            if kind == "open":
                ledger.uid = what[0]
            elif at < until:
                ledger._add(kind, *what)
        return ledger

    def _add(self, kind: str, *what: Any) -> None:
        if kind == "metrics":
            step, t, n = what
            self.metrics.update((f"m/{i:03d}", step, t, step + i / 1024) for i in range(n))
        elif kind == "image":
            self.images.add(what[0])
        elif kind == "table":
            self.tables[what[0]] = what[1]
        else:
            self.files.add(what[0])


def test_a_killed_process_has_lost_nothing_older_than_a_second(direct: Store, campaign_count: int) -> None:
    dice = random.Random(SEED)
    for number in range(campaign_count):
        ledger, killed_at = _run_victim(direct, number, after_s=dice.uniform(0.0, 3.0))
        _replay(direct, dice)
        _check(direct, ledger, killed_at)
        shutil.rmtree(direct.folder / f"run-{number}")  # else every replay reads all earlier journals


def test_neither_does_it_when_the_server_is_killed_as_well(served: Store, campaign_count: int) -> None:
    dice = random.Random(SEED + 1)
    for number in range(max(1, campaign_count // 2)):
        kill_server_after_s = dice.choice((None, dice.uniform(0.0, 3.0)))
        ledger, killed_at = _run_victim(
            served, number, after_s=dice.uniform(0.5, 4.0), kill_server_after_s=kill_server_after_s
        )
        if served.process is None:
            served.start()
            served.wait()
        _replay(served, dice)
        _check(served, ledger, killed_at)
        shutil.rmtree(served.folder / f"run-{number}")


def _run_victim(
    store: Store, number: int, *, after_s: float, kill_server_after_s: float | None = None
) -> tuple[Path, float]:
    """Let a victim log for a while, then kill it; return its ledger and when it was killed (monotonic clock)."""
    directory, ledger = store.folder / f"run-{number}", store.folder / f"ledger-{number}"
    command = [sys.executable, str(Path(__file__).with_name("victim.py")), str(directory), store.uri, str(ledger)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (store.folder / "victim.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not (
            ledger.exists() and ledger.stat().st_size
        ):  # importing MLflow takes seconds in which there is nothing to lose
            assert process.poll() is None, (store.folder / "victim.log").read_text()
            time.sleep(0.01)
        end = time.monotonic() + after_s
        if kill_server_after_s is not None:
            time.sleep(min(after_s, kill_server_after_s))
            store.kill()
        time.sleep(max(0.0, end - time.monotonic()))
        assert process.poll() is None, (store.folder / "victim.log").read_text()
    finally:
        process.kill()
        killed_at = time.monotonic()
        process.wait()
    print(f"kill {number}: after {after_s:.2f} s, server after {kill_server_after_s}", file=sys.stderr)
    return ledger, killed_at


def _replay(store: Store, dice: random.Random) -> None:
    """Deliver what is left: by the command, by the next run's start, or by both at once; then all again."""
    how = dice.choice(("command", "next start", "both"))
    run = open_run(store.folder / f"next-{time.monotonic_ns()}", tracking_uri=store.uri) if how != "command" else None
    if how != "next start":
        replay(store.folder)
    if run is not None:
        assert run.close(timeout_s=60).n_pending == 0
    done = replay(store.folder)
    deadline = time.monotonic() + 60
    while done.n_owned and time.monotonic() < deadline:
        time.sleep(0.1)
        done = replay(store.folder)
    assert (done.n_pending, done.n_owned, done.errors, done.rejected) == (0, 0, (), ())


def _check(store: Store, path: Path, killed_at: float) -> None:
    """Compare the store with the ledger: no old value is missing, none is there twice or was never logged."""
    old, all_of_it = Ledger.read(path, until=killed_at - SECOND), Ledger.read(path)
    with contextlib.closing(sqlite3.connect(store.database)) as connection:
        runs = connection.execute(
            "SELECT r.run_uuid, r.status, r.artifact_uri FROM runs r JOIN tags t USING (run_uuid)"
            " WHERE t.key = 'mlflow_yolo.uid' AND t.value = ?",
            (all_of_it.uid,),
        ).fetchall()
        if not runs:
            assert not old.metrics
            return
        ((run_id, status, location),) = runs
        rows = Counter(
            connection.execute("SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ?", (run_id,))
        )
    assert status == "KILLED"
    _check_metrics(rows, old, all_of_it)
    root = store.folder / "artifacts" / location.split("mlflow-artifacts:/")[1] if store.port else Path(location)
    _check_artifacts(root, old)


def _check_metrics(rows: Counter[tuple[str, int, int, float]], old: Ledger, all_of_it: Ledger) -> None:
    missing, double = old.metrics - rows, [row for row, n in rows.items() if n > 1]
    print(
        f"{old.metrics.total()} values older than a second, {rows.total()} in the store, {missing.total()} missing, "
        f"{len(double)} double",
        file=sys.stderr,
    )
    assert not missing
    assert not double
    assert len({(key, step) for key, step, _, _ in rows}) == len(rows)
    # The victim notes a call after it has returned: of what is in the store, only the last call may not be noted.
    last_step = max((step for _, step, _, _ in all_of_it.metrics), default=-1)
    assert {step for _, step, _, _ in rows - all_of_it.metrics} <= {last_step + 1}


def _check_artifacts(root: Path, old: Ledger) -> None:
    images = Counter(int(path.name.split("+step+")[1].split("+")[0]) for path in root.glob("images/*.png"))
    assert set(images.values()) <= {1}
    assert old.images <= set(images)
    assert len(list(root.glob("images/*.webp"))) == images.total()
    tables = {path.name: path.read_text() for path in root.glob("tables/*")}
    assert old.tables.items() <= tables.items()
    assert all(text == f"step\n{int(name[:6])}\n" for name, text in tables.items())
    files = {path.name: path.read_bytes() for path in root.glob("files/*")}
    assert old.files <= set(files)
    assert all(content == int(name[:6]).to_bytes(4, "big") * 100 for name, content in files.items())


def test_the_ledger_leaves_out_what_is_younger_and_what_is_torn(tmp_path: Path) -> None:
    lines: list[Any] = [[1.0, "open", "u"], [2.0, "metrics", 0, 5, 2], [3.0, "image", 7]]
    path = tmp_path / "ledger"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "[4.0, ")
    old = Ledger.read(path, until=2.5)
    assert (old.uid, old.metrics, old.images) == ("u", {("m/000", 0, 5, 0.0): 1, ("m/001", 0, 5, 1 / 1024): 1}, set())
    assert Ledger.read(path).images == {7}
