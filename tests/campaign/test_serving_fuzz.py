"""2,000 malformed requests against `mlflow-yolo serve`: no 5xx, no hang, no growth.

`CAMPAIGN_COUNT` sets how many hundreds; `make campaign` sends 2,000, a plain test run a few hundred.
"""

import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.deployment.malformed import malformed, picture, request, send
from tests.deployment.tiny_variants import tiny_variant

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(1800)]

FIRST = int(os.environ.get("CAMPAIGN_SEED", "1")) * 100_000
GOOD = request(picture(random.Random(1)))
WARMING = 400
"""Requests after which allocators and thread pools have their size."""
LARGEST_GROWTH_MB = 40


def test_malformed_requests_cause_no_5xx_no_hang_and_no_growth(tmp_path: Path, campaign_count: int) -> None:
    n_requests = campaign_count * 100
    folder = tiny_variant(tmp_path / "variant")
    command = [sys.executable, "-m", "mlflow_yolo", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        try:
            assert failures(port, range(FIRST, FIRST + WARMING)) == []
            before = psutil.Process(server.pid).memory_info().rss
            assert failures(port, range(FIRST + WARMING, FIRST + WARMING + n_requests)) == []
            grown_mb = (psutil.Process(server.pid).memory_info().rss - before) / 1e6
            assert send(port, GOOD).status == 200
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    print(f"{WARMING + n_requests} malformed requests: no 5xx, no hang, grown by {grown_mb:.1f} MB after {WARMING}")
    assert grown_mb < LARGEST_GROWTH_MB


def failures(port: int, seeds: range) -> list[tuple[int, object]]:
    """Return the seeds of requests that were answered with 5xx or not in time, and what became of them."""

    def outcome(seed: int) -> tuple[int, object]:
        try:
            return seed, send(port, malformed(seed)).status
        except OSError as error:
            return seed, repr(error)

    with ThreadPoolExecutor(4) as clients:
        outcomes = list(clients.map(outcome, seeds))
    return [(seed, one) for seed, one in outcomes if isinstance(one, str) or (isinstance(one, int) and one >= 500)]
