"""The links of a study open the views of MLflow's UI that compare its runs; the UI itself is asked."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_yolo.tracking.links import Links, study_links, ui_address
from mlflow_yolo.tracking.run import open_run

METRIC = "test/mAP50-95"


@pytest.fixture
def links(tmp_path: Path, store: str) -> Links:
    """Return the links of a small study: a parent and two children that differ in freeze."""
    parent = open_run(tmp_path / "parent", tracking_uri=store, name="the-study", study="the-study")
    parent.flush()
    children = []
    for freeze, score in ((0, 0.5), (10, 0.25)):
        child = open_run(
            tmp_path / f"child-{freeze}",
            tracking_uri=store,
            name=f"freeze={freeze} seed=0",
            parent_run_id=parent.run_id,
            study="the-study",
        )
        child.log_params({"freeze": freeze, "seed": 0})
        child.log_metrics({METRIC: score}, step=1)
        child.close()
        children.append(str(child.run_id))
    parent.close()
    found = study_links(store, parent_run_id=parent.run_id, child_run_ids=children, study="the-study", metric=METRIC)
    assert found is not None
    return found


def test_links_name_the_runs_the_study_and_the_metric(links: Links) -> None:
    assert links.run.startswith("#/experiments/0/runs/")
    assert links.compare.startswith("#/compare-runs?runs=%5B%22")
    assert "the-study" in links.charts
    assert "mAP50-95" in links.charts


def test_a_study_that_no_server_knows_has_no_links(tmp_path: Path, store: str) -> None:
    assert study_links(store, parent_run_id=None, child_run_ids=["x"], study="s", metric=METRIC) is None
    assert study_links(store, parent_run_id="0" * 32, child_run_ids=["x"], study="s", metric=METRIC) is None


def test_a_server_is_its_own_address_and_a_file_needs_a_command() -> None:
    assert ui_address("https://user:secret@mlflow.example/") == ("https://user:***@mlflow.example", "")
    assert ui_address("sqlite:////x/mlflow.db")[1] == "mlflow ui --backend-store-uri sqlite:////x/mlflow.db"


@pytest.fixture
def ui(links: Links, store: str, tmp_path: Path) -> Iterator[str]:
    """Return the address of a running MLflow UI on the store of `links`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        store,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (tmp_path / "ui.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while not _answers(address):
        assert time.monotonic() < deadline, (tmp_path / "ui.log").read_text()
        time.sleep(0.2)
    yield address
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(timeout=30)


@pytest.mark.slow
def test_mlflows_ui_shows_the_comparison_and_the_unfolded_children(
    links: Links, ui: str, chromium: str, tmp_path: Path
) -> None:
    compare = _text(chromium, f"{ui}/{links.compare}", tmp_path)
    charts = _text(chromium, f"{ui}/{links.charts}", tmp_path)

    assert "Parallel Coordinates Plot" in compare
    assert "Comparing 2 Runs" in compare
    assert "freeze=10 seed=0" in charts
    assert METRIC in charts


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


def _text(chromium: str, address: str, tmp_path: Path) -> str:
    """Return the page as the browser has built it after a few seconds."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        f"--user-data-dir={tmp_path / 'browser'}",
    ]
    command = [chromium, *flags, "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
