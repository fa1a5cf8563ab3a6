import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.http_clients import drive, request

DELAY_S = 0.01


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[int, bytes]] = []
        self.status, self.head = "200 OK", "Content-Length: {n}"


class _Handler(socketserver.StreamRequestHandler):
    """Answers as long a body as was sent, in pieces, after a while."""

    server: _Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            assert line == b"POST /predict HTTP/1.1\r\n"
            head = {name.lower(): value for name, value in self._head()}
            body = self.rfile.read(int(head["content-length"]))
            self.server.seen.append((self.client_address[1], body))
            time.sleep(DELAY_S)
            said = self.server.head.format(n=len(body))
            self.wfile.write(f"HTTP/1.1 {self.server.status}\r\n{said}\r\n\r\n".encode())
            for half in (body[: len(body) // 2], body[len(body) // 2 :]):
                self.wfile.write(half)
                self.wfile.flush()

    def _head(self) -> Iterator[tuple[str, str]]:
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            yield name, value


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as one:
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield one
        one.shutdown()


def test_every_request_is_answered_once_and_bodies_are_sent_in_turns(server: _Server) -> None:
    bodies = [b"a" * 10, b"b" * 3_000_000, b"c"]  # the second is more than a socket takes at once
    requests = [request("/predict", body, "image/jpeg") for body in bodies]

    driven = drive(server.server_address[1], requests, n_clients=1, n_requests=7)

    assert [body[:1] for _, body in server.seen] == [b"a", b"b", b"c", b"a", b"b", b"c", b"a"]
    assert [len(body) for _, body in server.seen[:3]] == [10, 3_000_000, 1]
    assert len(driven.latency_s) == 7
    assert min(driven.latency_s) >= DELAY_S
    assert driven.wall_s >= 7 * DELAY_S
    assert driven.per_second == pytest.approx(7 / driven.wall_s)


def test_clients_keep_their_connections_and_wait_for_nobody(server: _Server) -> None:
    driven = drive(server.server_address[1], [request("/predict", b"x", "image/jpeg")], n_clients=8, n_requests=80)

    assert len({port for port, _ in server.seen}) == 8
    assert len(driven.latency_s) == 80
    # One after the other they would take 80 times as long as one.
    assert driven.wall_s < 40 * DELAY_S + sum(driven.latency_s) / 8


def test_an_answer_that_is_no_success_ends_it_with_what_was_said(server: _Server) -> None:
    server.status = "429 Too Many Requests"
    with pytest.raises(OSError, match="429 Too Many"):
        drive(server.server_address[1], [request("/predict", b"x", "image/jpeg")], n_clients=1, n_requests=1)


def test_an_answer_without_a_length_cannot_be_timed(server: _Server) -> None:
    server.head = "Connection: keep-alive"
    with pytest.raises(OSError, match="how long its answer is"):
        drive(server.server_address[1], [request("/predict", b"x", "image/jpeg")], n_clients=1, n_requests=1)
