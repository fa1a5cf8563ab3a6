import random
import socket
import time
from collections.abc import Iterator

import pytest

from mlflow_yolo.deployment.http import wire
from mlflow_yolo.deployment.http.limits import Limits
from tests.deployment.malformed import picture, request, send
from tests.deployment.serving import StandIn, served

GOOD = request(picture(random.Random(1)))


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve with little patience."""
    monkeypatch.setattr(wire, "HEADER_S", 0.3)
    with served(StandIn(), limits=Limits(timeout_s=0.5, max_body_mb=0.05)) as port:
        yield port
        assert send(port, GOOD).status == 200  # whatever was sent before


def heard(port: int, *parts: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
    """Return what a server says until it closes, and how long that took."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            while chunk := connection.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer, time.monotonic() - begun


def test_a_header_that_does_not_come_or_trickles_is_408(port: int) -> None:
    for parts in ((), (b"POST /predict HTTP/1.1\r\n",), (b"P", b"O", b"S", b"T", b" ", b"/", b"x", b" ", b"H", b"T")):
        answer, seconds = heard(port, *parts, pause_s=0.1)
        assert answer.startswith(b"HTTP/1.1 408") or not answer
        assert seconds < 3


def test_the_next_header_of_a_connection_must_come_too(port: int) -> None:
    answer, seconds = heard(port, GOOD.replace(b"Connection: close\r\n", b""), b"GET /pi", pause_s=0.2)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answer
    assert seconds < 3


@pytest.mark.parametrize("line", [b"GET /" + b"a" * 300_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 300_000])
def test_a_header_without_end_is_431(port: int, line: bytes) -> None:
    answer, _ = heard(port, line)
    assert answer.startswith(b"HTTP/1.1 431") or not answer  # a reset may overtake the answer


def test_a_trailer_without_end_is_given_up(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
    answer, seconds = heard(port, head, *[b"y" * 50_000] * 6, pause_s=0.02)
    assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 408", b"HTTP/1.1 400")) or not answer
    assert seconds < 3


def test_a_body_that_stops_is_408_and_one_that_is_too_long_413(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n"
    answer, seconds = heard(port, head + b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 408")
    assert seconds < 3
    chunked = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer, _ = heard(port, chunked, *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 10, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\nExpect: 100-continue\r\n\r\n"
    answer, _ = heard(port, head)
    assert answer.startswith(b"HTTP/1.1 413")


def test_two_lengths_and_other_smuggling_are_refused(port: int) -> None:
    body = picture(random.Random(2))
    for line in (
        f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 4",
    ):
        answer, _ = heard(port, f"POST /predict HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode() + body)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"200 OK" not in answer


def test_large_bodies_in_small_pieces_pass(port: int) -> None:
    image = picture(random.Random(3), "BMP")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = b"".join(b"1\r\n" + image[i : i + 1] + b"\r\n" for i in range(len(image)))
    answer, _ = heard(port, head + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
