"""Malformed requests against a real server: no 5xx, no hang. `tests/campaign` sends thousands and weighs the memory."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.inference.engine import Engine
from tests.deployment.malformed import malformed, picture, request, send
from tests.deployment.serving import served
from tests.deployment.tiny_variants import tiny_variant

GOOD = request(picture(random.Random(1)))


@pytest.mark.slow
def test_no_malformed_request_is_answered_with_5xx_or_not_at_all(tmp_path: Path) -> None:
    engine = Engine(tiny_variant(tmp_path / "variant"), workers=2, timeout_s=20)
    with served(engine, limits=Limits(timeout_s=20)) as port, ThreadPoolExecutor(4) as clients:
        statuses = list(clients.map(lambda seed: (seed, send(port, malformed(seed)).status), range(200)))
        assert [(seed, status) for seed, status in statuses if status is not None and status >= 500] == []
        counted = Counter(status for _, status in statuses)
        assert {200, 400, 404, 405, 413, 415} <= counted.keys()  # the generator reaches every kind of refusal
        assert counted[None] < 20
        assert send(port, GOOD).status == 200
    engine.close(5)
