"""A request's body, read as it comes and never further than it may be long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from mlflow_yolo.deployment.http.limits import Limits, Refused

_DRAINED_BODIES = 4
_DRAIN_S = 2.0


class Bodies:
    """Reads bodies: none too long, none too slowly, all together within the memory that is set aside for them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are in memory now."""
        return self._held

    @contextlib.asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the whole body, and count it as held until the block is left.

        Raises:
            Refused: 413 for too long a body, whatever its Content-Length says; 408 for one that is not there in time;
                429 where other bodies fill the memory; 400 for none, or for a client that left.
        """
        chunks: list[bytes] = []
        taken = 0
        stream = request.stream()
        try:
            self._check_announced(request)
            async with asyncio.timeout(self._limits.timeout_s):
                async for chunk in stream:
                    taken += len(chunk)
                    self._held += len(chunk)
                    self._check(taken)
                    chunks.append(chunk)
        except TimeoutError:
            self._held -= taken
            seconds = f"{self._limits.timeout_s:g} s"
            raise Refused(408, f"the body was not there after {seconds}. Send it faster.", unread=True) from None
        except ClientDisconnect:
            self._held -= taken
            raise Refused(400, "the client left before its body was whole.", unread=True) from None
        except Refused:
            self._held -= taken
            # Who asked first whether to send (Expect: 100-continue) is not told to, and hears the answer at once.
            if taken or "expect" not in request.headers:
                await _drain(stream, _DRAINED_BODIES * self._limits.body_bytes)
            raise
        try:
            if not taken:
                raise Refused(400, "the body is empty. Send an image file's bytes.")
            yield chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._held -= taken

    def _check_announced(self, request: Request) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            self._check(int(announced[:20]), more=int(announced[:20]))

    def _check(self, length: int, more: int = 0) -> None:
        if length > self._limits.body_bytes:
            limit = f"{self._limits.max_body_mb:g} MB"
            raise Refused(413, f"the body is longer than {limit}. Send a smaller image or fewer.", unread=True)
        if self._held + more > self._limits.held_bytes:
            raise Refused(429, "too many bodies are in memory. Come again.", retry_after_s=1, unread=True)


async def _drain(stream: AsyncIterator[bytes], length: int) -> None:
    """Read on and forget, up to `length` bytes and for a moment, so that a client hears why it was refused.

    A connection that is closed on unread bytes is reset, and the answer lost where the client only listens at the end.
    """
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DRAIN_S):
            async for chunk in stream:
                length -= len(chunk)
                if length < 0:
                    return
