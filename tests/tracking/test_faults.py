"""A run against a real tracking server behind a proxy that fails in every way: each value arrives once, as measured."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.tracking.delivery.images import grid_files
from mlflow_yolo.tracking.delivery.ownership import is_owned
from mlflow_yolo.tracking.delivery.replay import replay
from mlflow_yolo.tracking.delivery.run_file import RunFile
from mlflow_yolo.tracking.run import TrackedRun, read_run_file
from mlflow_yolo.tracking.stores.addresses import answers, responds

pytestmark = pytest.mark.slow

Open = Callable[..., TrackedRun]
LIMIT_S = 60.0


class FaultyProxy:
    """Stands before a tracking server and does to each request what `mode` says.

    Modes: `pass`; `error` (500); `slow` (half a second late); `silent` (takes the request and never answers); `lose`
    (hands it on and keeps the answer); `down` (nobody listens).
    """

    def __init__(self, upstream_port: int) -> None:
        self.mode = "pass"
        self.requests: Counter[str] = Counter()
        self.upstream_port = upstream_port
        self._changed = threading.Event()
        self._listener: ThreadingHTTPServer | None = None
        self._listen(0)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def become(self, mode: str) -> None:
        """Fail in this way from now on; requests that wait for an answer are cut off."""
        if self._listener and mode == "down":
            self._stop_listening()
        elif not self._listener and mode != "down":
            self._listen(self.port)
        self.mode = mode
        self._changed.set()
        self._changed = threading.Event()

    def close(self) -> None:
        self.become("down")

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._listener = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.port = int(self._listener.server_address[1])
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()

    def _stop_listening(self) -> None:
        assert self._listener is not None
        self._listener.shutdown()
        self._listener.server_close()
        self._listener = None

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        handler.close_connection = True
        mode, changed = self.mode, self._changed
        self.requests[f"{mode} {handler.path.split('?')[0].rpartition('/')[2]}"] += 1
        if mode == "silent":
            changed.wait(LIMIT_S)
            return
        if mode == "error":
            _answer(handler, 500, b"out of order", "text/plain")
            return
        if mode == "slow":
            changed.wait(0.5)
        connection = HTTPConnection("127.0.0.1", self.upstream_port, timeout=LIMIT_S)
        headers = {k: v for k, v in handler.headers.items() if k.lower() not in ("connection", "host")}
        with contextlib.closing(connection):
            connection.request(handler.command, handler.path, body, headers)
            response = connection.getresponse()
            content = response.read()
        if mode != "lose":
            _answer(handler, response.status, content, response.headers.get("Content-Type", ""))


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.proxy.handle(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        return


def _answer(handler: BaseHTTPRequestHandler, status: int, content: bytes, kind: str) -> None:
    with contextlib.suppress(OSError):  # the client may have given up
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)


@dataclass(frozen=True)
class Server:
    """A running `mlflow server` and the database behind it."""

    port: int
    database: Path
    artifacts: Path


@pytest.fixture(scope="module")
def server(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One `mlflow server` for all tests of this module: starting it takes seconds."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(store_template, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    options += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options], stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + LIMIT_S
    while not responds(f"http://127.0.0.1:{port}"):
        assert process.poll() is None, (folder / "server.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield Server(port, folder / "mlflow.db", folder / "artifacts")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    """A proxy before the server that works until it is told otherwise."""
    made = FaultyProxy(server.port)
    yield made
    made.close()


@pytest.fixture
def stored(server: Server) -> Callable[[TrackedRun | RunFile], Counter[tuple[str, int, int, float]]]:
    """Counts what the database holds of a run: (key, step, time, value)."""

    def count(run: TrackedRun | RunFile) -> Counter[tuple[str, int, int, float]]:
        with contextlib.closing(sqlite3.connect(server.database)) as connection:
            rows = connection.execute(
                "SELECT m.key, m.step, m.timestamp, m.value FROM metrics m JOIN tags t USING (run_uuid)"
                " WHERE t.key = 'mlflow_yolo.uid' AND t.value = ?",
                (run.uid,),
            )
            return Counter((key, step, t, value) for key, step, t, value in rows)

    return count


def log(run: TrackedRun, steps: range) -> Counter[tuple[str, int, int, float]]:
    """Log 50 values per step, an image and a table; return what the store must hold of them."""
    for step in steps:
        run.log_metrics({f"m/{i}": step + i / 64 for i in range(50)}, step=step, timestamp_ms=1_000_000 + 7 * step)
    run.log_image("k", np.full((8, 8, 3), steps[0], np.uint8), step=steps[0])
    run.log_text(f"{steps[0]}", f"tables/{steps[0]}.csv")
    return Counter((f"m/{i}", step, 1_000_000 + 7 * step, step + i / 64) for step in steps for i in range(50))


def deliver(run: TrackedRun, folder: Path) -> None:
    """Replay what is left once the run's own thread has ended."""
    deadline = time.monotonic() + LIMIT_S
    while is_owned(run.directory):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    done = replay(folder)
    assert (done.n_pending, done.errors, done.rejected) == (0, (), ())


def artifacts(run: TrackedRun, server: Server) -> tuple[int, list[str]]:
    """Return how many images the store holds of the run, and its tables."""
    folder = _artifact_folder(run, server)
    assert all(path.read_text() == path.stem for path in folder.glob("tables/*"))
    return len(list(folder.glob("images/*.png"))), sorted(path.name for path in folder.glob("tables/*"))


def _artifact_folder(run: TrackedRun | RunFile, server: Server) -> Path:
    (folder,) = server.artifacts.glob(f"*/{_run_id(run, server)}/artifacts")
    return folder


def _run_id(run: TrackedRun | RunFile, server: Server) -> str:
    with contextlib.closing(sqlite3.connect(server.database)) as connection:
        found = connection.execute(
            "SELECT run_uuid FROM tags WHERE key = 'mlflow_yolo.uid' AND value = ?", (run.uid,)
        ).fetchall()
    assert len(found) == 1
    return str(found[0][0])


def _status(run: TrackedRun | RunFile, server: Server) -> str:
    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    return str(client.get_run(_run_id(run, server)).info.status)


@pytest.mark.parametrize("mode", ["down", "error", "silent", "lose"])
@pytest.mark.parametrize("moment", ["start", "middle", "whole run"])
def test_a_fault_loses_and_doubles_nothing(
    mode: str, moment: str, open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, tmp_path: Path
) -> None:
    proxy.become("pass" if moment == "middle" else mode)
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    expected = log(run, range(3))
    if moment == "middle":
        assert run.flush(LIMIT_S).reason == ""
        proxy.become(mode)
    expected += log(run, range(3, 6))
    if moment == "start":
        assert run.flush(LIMIT_S).n_pending > 0
        proxy.become("pass")
    start = time.monotonic()
    delivery = run.close(timeout_s=LIMIT_S)
    waited_s = time.monotonic() - start
    if moment != "start":
        assert delivery.n_pending > 0
        assert waited_s < LIMIT_S / 2  # a dead server is given up long before the limit
        proxy.become("pass")
    deliver(run, tmp_path)
    assert stored(run) == expected
    assert artifacts(run, server) == (2, ["0.csv", "3.csv"])
    assert _status(run, server) == "FINISHED"


@pytest.mark.parametrize("patience_s", [LIMIT_S, 0.7])
def test_a_slow_server_is_waited_for(
    patience_s: float, open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, tmp_path: Path
) -> None:
    proxy.become("slow")
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    expected = log(run, range(4))
    delivery = run.close(timeout_s=patience_s)
    assert (delivery.n_pending == 0) is (patience_s == LIMIT_S)
    deliver(run, tmp_path)
    assert stored(run) == expected
    assert artifacts(run, server) == (1, ["0.csv"])
    assert _status(run, server) == "FINISHED"


def test_an_address_that_drops_packets_is_given_up(
    open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, tmp_path: Path
) -> None:
    with socket.socket() as full, contextlib.ExitStack() as opened:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # its queue is full: Linux drops what else wants to connect
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        uri = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert not answers(uri, timeout_s=0.2)
        run = open_tracked(tracking_uri=uri, experiment="faults")
        expected = log(run, range(2))
        delivery = run.close(timeout_s=LIMIT_S)
    assert "does not answer" in delivery.reason
    while is_owned(run.directory):
        time.sleep(0.02)
    assert replay(tmp_path, tracking_uri=proxy.uri).n_pending == 0
    assert stored(run) == expected
    assert artifacts(run, server) == (1, ["0.csv"])


def test_a_jumping_clock_changes_times_and_nothing_else(
    open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset_s, real = 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset_s)
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    around: list[tuple[float, float]] = []
    for step, offset_s in enumerate([0.0, 86_400.0, -86_400.0]):  # noqa: B007
        before = time.time()
        run.log_metrics({"a": step}, step=step)
        run.log_image("k", np.zeros((8, 8, 3), np.uint8), step=step)
        run.log_text(f"{step}", f"tables/{step}.csv")
        around.append((before, time.time()))
        assert run.flush(LIMIT_S).reason == ""
    assert run.close(timeout_s=LIMIT_S).n_pending == 0  # a day before it was opened
    times = {step: t for _, step, t, _ in stored(run).elements()}
    assert len(times) == 3
    assert all(int(before * 1000) <= times[step] <= after * 1000 for step, (before, after) in enumerate(around))
    assert artifacts(run, server) == (3, ["0.csv", "1.csv", "2.csv"])
    assert _status(run, server) == "FINISHED"


def test_a_disk_that_is_full_for_a_while_loses_nothing(
    open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "run" / "mlflow_yolo" / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.symlink_to("/dev/full")
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    expected = log(run, range(2))
    assert "only in memory" in run.flush(LIMIT_S).reason
    journal.unlink()
    expected += log(run, range(2, 4))
    assert run.close(timeout_s=LIMIT_S).n_pending == 0
    assert stored(run) == expected
    assert artifacts(run, server) == (2, ["0.csv", "2.csv"])


def test_images_and_tables_wait_for_a_full_disk(
    open_tracked: Open, proxy: FaultyProxy, server: Server, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # part of an image's name
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    folder = run.directory / "mlflow_yolo"
    png, _ = grid_files(folder, "k", step=0, timestamp_ms=1_000_000, uid=run.uid)
    full = (png, folder / "files" / "tables" / "0.csv")
    for file in full:
        file.parent.mkdir(parents=True)
        file.symlink_to("/dev/full")
    expected = log(run, range(2))
    assert "only in memory" in run.flush(LIMIT_S).reason
    assert stored(run) == expected
    for file in full:
        file.unlink()
    expected += log(run, range(2, 4))
    delivery = run.close(timeout_s=LIMIT_S)
    assert (delivery.n_pending, delivery.n_rejected) == (0, 0)
    assert stored(run) == expected
    assert artifacts(run, server) == (2, ["0.csv", "2.csv"])


def test_no_thread_outlives_a_run(open_tracked: Open, proxy: FaultyProxy) -> None:
    run = open_tracked(tracking_uri=proxy.uri, experiment="faults")
    log(run, range(2))
    proxy.become("silent")
    log(run, range(2, 4))
    run.close(timeout_s=LIMIT_S)
    proxy.become("error")  # ends the request that the sender is in
    deadline = time.monotonic() + LIMIT_S
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("mlflow-yolo")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_process_whose_server_never_answers_ends_when_it_is_done(
    proxy: FaultyProxy, server: Server, tmp_path: Path
) -> None:
    proxy.become("silent")
    code = f"""
        from pathlib import Path
        from mlflow_yolo.tracking.run import open_run
        run = open_run(Path({str(tmp_path / "run")!r}), tracking_uri={proxy.uri!r}, experiment="faults")
        run.log_metrics({{"a": 1}}, timestamp_ms=5)
        run.flush(2.0)
        run.log_metrics({{"a": 2}}, timestamp_ms=6)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, timeout=LIMIT_S / 2)
    assert process.returncode == 0
    proxy.become("pass")
    assert replay(tmp_path).n_pending == 0
    with contextlib.closing(sqlite3.connect(server.database)) as connection:
        assert connection.execute(
            "SELECT count(*) FROM metrics WHERE key = 'a' AND timestamp IN (5, 6)"
        ).fetchone() == (2,)


TRAINING = """
    import json, sys, threading, time

    from ultralytics import YOLO

    import mlflow_yolo
    from mlflow_yolo.tracking.stores.client import load_mlflow
    from mlflow_yolo.tracking.events.lifecycle import TrainingLifecycle
    from mlflow_yolo.tracking.delivery.sender_thread import SenderThread

    model, arguments, uri, save_dir = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
    load_mlflow()
    network = YOLO(model)
    mlflow_yolo.track(network, tracking_uri=uri, experiment="faults")
    asked, inside, waited_s, ended_at = [], [], [0.0], []
    handle, drain = TrainingLifecycle.handle, SenderThread.drain

    def watch(event, arguments):  # Ultralytics asks for things as well
        if inside and event.split(".")[0] in ("socket", "sqlite3"):
            if threading.current_thread() is threading.main_thread() and not ended_at:
                asked.append(event)

    def timed(self, event, subject):
        start = time.monotonic()
        inside.append(event)
        handle(self, event, subject)
        inside.pop()
        if not ended_at:
            waited_s[0] += time.monotonic() - start

    def waiting(self, **options):
        if not ended_at:
            asked.append("waits for the sender")
        return drain(self, **options)

    def end(trainer):
        ended_at.append(time.monotonic())

    TrainingLifecycle.handle, SenderThread.drain = timed, waiting
    network.add_callback("on_train_end", end)
    sys.addaudithook(watch)
    network.train(**arguments, save_dir=save_dir)
    print(json.dumps({
        "asked": asked,
        "waited_s": waited_s[0],
        "end_s": time.monotonic() - ended_at[0],
        "returned_at": time.monotonic(),
    }))
"""


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_training_whose_server_does_not_answer_goes_on_as_if_there_were_none(
    mode: str,
    proxy: FaultyProxy,
    server: Server,
    stored: Any,
    small_model: Path,
    small_arguments: Mapping[str, Any],
    tmp_path: Path,
) -> None:
    """A request to a black hole lasts 20 s; the training's own thread makes none and waits for none."""
    proxy.become(mode)
    command = [sys.executable, "-c", textwrap.dedent(TRAINING), str(small_model), json.dumps(dict(small_arguments))]
    done = subprocess.run(
        [*command, proxy.uri, str(tmp_path / "train")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        timeout=2 * LIMIT_S,
        check=True,
    )
    ended_at = time.monotonic()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["asked"] == []
    assert found["waited_s"] < 3
    assert found["end_s"] < LIMIT_S / 2
    assert ended_at - found["returned_at"] < 10
    proxy.become("pass")
    done_now = replay(tmp_path)
    assert (done_now.n_pending, done_now.errors, done_now.rejected) == (0, (), ())
    run = read_run_file(tmp_path / "train")
    assert run is not None
    values = stored(run)
    assert set(values.values()) == {1}
    assert sorted(step for key, step, _, _ in values if key == "train/box_loss") == [1, 2]
    assert _status(run, server) == "FINISHED"
    folder = _artifact_folder(run, server)
    assert {"layers.parquet", "histograms.npz", "report.html"} <= {path.name for path in folder.glob("statistics/*")}
    assert len(list(folder.glob("images/*.png"))) == len(list(folder.glob("images/*.webp"))) > 0
