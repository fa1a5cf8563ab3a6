"""What every request passes first: the token, and the clock."""

import hmac
import json
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_yolo.deployment.http.answers import error_json

OPEN = frozenset(("/", "/docs", "/openapi.json", "/ping", "/health"))
"""Paths that need no token: they say nothing of the model, and a load balancer has none."""


class Gate:
    """Lets requests with the token through, and reports each with its status and time.

    Args:
        app: What comes behind.
        token: What `Authorization: Bearer` has to say; None for anybody.
        paths: Known paths; others are reported as `other`, since a client may invent as many as it likes.
        report: Called with path, status and seconds once a request is answered.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, paths: frozenset[str], report: Callable[[str, int, float], None]
    ) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._paths = paths
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if self._may_pass(scope, path):
                await self._app(scope, receive, watched)
            else:
                await _refuse(watched)
        finally:
            self._report(path if path in self._paths else "other", status, time.perf_counter() - begun)

    def _may_pass(self, scope: Scope, path: str) -> bool:
        if self._expected is None or path in OPEN:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)


async def _refuse(send: Send) -> None:
    body = json.dumps(error_json(401, "the token is missing or wrong. Send Authorization: Bearer <token>.")).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", b"Bearer"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
