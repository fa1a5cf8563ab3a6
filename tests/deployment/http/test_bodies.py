import asyncio

import pytest

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.exceptions import ArgumentError
from tests.deployment.http.test_app import image
from tests.deployment.serving import Heard, StandIn, ask, asking

LIMITS = Limits(max_body_mb=0.001, max_held_mb=0.001, timeout_s=0.2)


def small() -> bytes:
    return image(4, 4)


def test_a_body_as_long_as_allowed_passes_and_a_longer_one_is_413() -> None:
    app = build_app(StandIn(), limits=LIMITS)
    assert ask(app, "/predict", small() + bytes(1000 - len(small()))).status == 200
    assert ask(app, "/predict", small() + bytes(1001 - len(small()))).status == 413


def test_an_announced_length_is_refused_before_anything_is_read() -> None:
    app = build_app(StandIn(), limits=LIMITS)
    heard = ask(app, "/predict", chunks=[60.0], headers={"content-length": "1001", "expect": "100-continue"})
    assert (heard.status, heard.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("announced", [{}, {"content-length": "5"}, {"content-length": "-1"}])
def test_a_longer_body_than_announced_is_413_however_it_comes(announced: dict[str, str]) -> None:
    app = build_app(StandIn(), limits=LIMITS)
    assert ask(app, "/predict", chunks=[bytes(300)] * 5, headers=announced).status == 413


@pytest.mark.parametrize("chunks", [[0.0, 60.0], [b"\x89PNG", 60.0], [b"x", 0.15, b"x", 0.15, b"x", 0.15]])
def test_a_body_that_trickles_is_408(chunks: list[bytes | float]) -> None:
    heard = ask(build_app(StandIn(), limits=LIMITS), "/predict", chunks=chunks)
    assert (heard.status, heard.headers["connection"]) == (408, "close")


def test_no_body_is_400() -> None:
    assert ask(build_app(StandIn()), "/predict", b"").status == 400


def test_bodies_together_may_not_fill_the_memory_and_leave_none_behind() -> None:
    backend = StandIn(waits=True)
    app = build_app(backend, limits=Limits(max_body_mb=0.001, max_held_mb=0.001, timeout_s=5))
    body = small() + bytes(900 - len(small()))

    async def run() -> list[Heard]:
        first = asyncio.create_task(asking(app, "/predict", body))
        while not backend.waiting:
            await asyncio.sleep(0)
        second = await asking(app, "/predict", body)
        backend.waiting[0].set_result(backend.answer())
        return [await first, second]

    first, second = asyncio.run(run())
    assert (first.status, second.status, second.headers["retry-after"]) == (200, 429, "1")
    backend.waits = False
    assert "mlflow_yolo_held_bytes 0.0" in ask(app, "/metrics").body.decode()
    assert ask(app, "/predict", body).status == 200


@pytest.mark.parametrize(
    "values",
    [{"max_body_mb": 0}, {"timeout_s": -1}, {"max_pixels": float("nan")}, {"max_batch": 0}, {"max_body_mb": 600}],
)
def test_a_limit_that_lets_nothing_through_is_named(values: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(values))):
        Limits(**values)
