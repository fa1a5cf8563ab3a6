"""Connections that must get on: uvicorn bounds neither the length of a header nor the time it takes."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 64 * 1024
HEADER_S = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers, and what stands in a message beside its body, are bounded in length and time."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unused_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first header."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._get_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and give up where too many came of which nothing was made."""
        self._unused_bytes += len(data)
        super().data_received(data)
        if self._unused_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Begin to wait for a header."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Stop waiting; the body has its own limits."""
        self._get_on()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the bytes before as used."""
        self._unused_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count the bytes before as used."""
        self._unused_bytes = 0
        super().on_message_complete()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_S, self._refuse, b"408 Request Timeout")

    def _get_on(self) -> None:
        self._unused_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
