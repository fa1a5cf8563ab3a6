"""Clients that keep a server busy and cost it nothing: raw sockets in one process, each connection kept open.

Every client sends its next request as soon as it has its answer, so `n_clients` requests are always on their way.
Nothing is encoded while the clock runs: requests are bytes that were made before, answers are only counted through.
"""

import contextlib
import re
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNK = 1 << 18
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Driven:
    """What clients saw.

    Attributes:
        latency_s: Seconds from the first byte sent to the last byte received, one a request, in order of arrival.
        wall_s: Seconds from the first request to the last answer.
        cpu_s: CPU seconds of who asked.
    """

    latency_s: tuple[float, ...]
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return len(self.latency_s) / self.wall_s


def request(path: str, body: bytes, content_type: str) -> bytes:
    """Return a whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def drive(port: int, requests: Sequence[bytes], *, n_clients: int, n_requests: int) -> Driven:
    """Send requests to a server on this machine and return how long the answers took.

    Args:
        port: The server's port on 127.0.0.1.
        requests: Whole requests, sent in turns.
        n_clients: Connections.
        n_requests: Requests in all.

    Raises:
        OSError: An answer is none of status 200 (the answer is in the message), or none comes for two minutes.
    """
    waiting = islice(cycle(requests), n_requests)
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        clients = [_Client(port, selector) for _ in range(n_clients)]
        try:
            start, cpu = time.perf_counter(), time.process_time()
            for client in clients:
                client.send_next(waiting)
            while len(latencies) < n_requests:
                if not (ready := selector.select(_PATIENCE_S)):
                    raise OSError(f"no answer within {_PATIENCE_S:g} s")
                for key, _ in ready:
                    if (latency_s := key.data.advance()) is not None:
                        latencies.append(latency_s)
                        key.data.send_next(waiting)
            return Driven(tuple(latencies), time.perf_counter() - start, time.process_time() - cpu)
        finally:
            for client in clients:
                client.close()


class _Client:
    """One connection, with one request on its way."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._selector = selector
        selector.register(self._socket, selectors.EVENT_READ, self)
        self._unsent, self._answer, self._end, self._start = memoryview(b""), bytearray(), 0, 0.0

    def send_next(self, waiting: Iterator[bytes]) -> None:
        """Begin the next request, if there is one."""
        if (found := next(waiting, None)) is not None:
            self._unsent, self._answer, self._end = memoryview(found), bytearray(), 0
            self._start = time.perf_counter()
            self._send()

    def advance(self) -> float | None:
        """Send or receive what can be now; return the seconds of a request that is answered."""
        if self._unsent:
            self._send()
            return None
        received = self._socket.recv(_CHUNK)
        self._answer += received
        if not self._end:
            self._end = _end_of(self._answer)
        if not received or (self._end and not self._answer.startswith(b"HTTP/1.1 200 ")):
            raise OSError(f"the server answered {bytes(self._answer[:300])!r}")
        return time.perf_counter() - self._start if 0 < self._end <= len(self._answer) else None

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        wanted = selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ
        if self._selector.get_key(self._socket).events != wanted:
            self._selector.modify(self._socket, wanted, self)


def _end_of(answer: bytearray) -> int:
    """Return the length of a whole answer, 0 while its head has not come."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return 0
    length = _LENGTH.search(answer, 0, head + 2)
    if length is None:
        raise OSError(f"the server does not say how long its answer is: {bytes(answer[:head])!r}")
    return head + 4 + int(length[1])
