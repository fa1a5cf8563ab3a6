"""A backend whose answers are known, requests to an application without a socket, and servers for a test."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.http.server import _config, _listener, _Server
from mlflow_yolo.deployment.inference.backend import Answer, Loaded, Options, Status
from mlflow_yolo.runtime.detections import Detections
from mlflow_yolo.runtime.images import read_image

MODEL = Loaded("cells", "7", "champion-cpu", "ab" * 32, "int8-onnx", "detect", ("RBC", "WBC"), (64, 64), "2026-01-01")
FOUND = Detections(
    boxes=np.array([[1.0, 2.0, 30.12345, 40.0], [0.0, 0.0, 5.0, 6.0]]),
    scores=np.array([0.75, 0.5]),
    classes=np.array([1, 0]),
    names=("RBC", "WBC"),
)


@dataclass
class StandIn:
    """A backend that finds the same in every image, keeps what it was asked, and can be told to fail or to wait."""

    found: Detections = FOUND
    model: Loaded = MODEL
    errors: dict[int, Exception] = field(default_factory=dict)
    """What the n-th call raises, from 0."""
    waits: bool = False
    asked: list[tuple[Any, Options]] = field(default_factory=list)
    waiting: list["Future[Answer]"] = field(default_factory=list)
    error: str = ""
    closed_with_s: float | None = None

    def submit(self, image: Any, options: Options = Options()) -> "Future[Answer]":  # noqa: B008
        self.asked.append((image, options))
        if error := self.errors.get(len(self.asked) - 1):
            raise error
        future: Future[Answer] = Future()
        if self.waits:
            self.waiting.append(future)
            return future
        try:
            height, width = read_image(image).shape[:2]
            future.set_result(self.answer(width, height))
        except Exception as error:
            future.set_exception(error)
        return future

    def answer(self, width: int = 64, height: int = 48) -> Answer:
        return Answer(self.found, self.model, width, height, queue_ms=0.25, compute_ms=3.5, batch=1)

    def status(self) -> Status:
        return Status(self.model, self.error, queue=len(self.waiting), in_flight=0)

    def close(self, grace_s: float) -> None:
        self.closed_with_s = grace_s


@dataclass(frozen=True)
class Heard:
    """An answer of the application."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: Any, path: str, body: bytes | None = None, **named: Any) -> Heard:
    """Return the application's answer; see `asking`."""
    return asyncio.run(asking(app, path, body, **named))


async def asking(
    app: Any,
    path: str,
    body: bytes | None = None,
    *,
    kind: str | None = "image/png",
    headers: dict[str, str] | None = None,
    method: str | None = None,
    chunks: Sequence[bytes | float] | None = None,
    root: str = "",
) -> Heard:
    """Return the application's answer to one request.

    Args:
        app: An ASGI application.
        path: With its query.
        body: Sent with a true Content-Length; None for a GET.
        kind: Its Content-Type.
        headers: Further headers.
        method: GET or POST unless told otherwise.
        chunks: Sent instead of `body` without a Content-Length; a number is a pause in seconds, and after the last one
            the body does not end if it is a number.
        root: Where the application is mounted.
    """
    given = {**({"content-type": kind} if kind else {}), **(headers or {})}
    if body is not None:
        given.setdefault("content-length", str(len(body)))
    parts = iter(chunks if chunks is not None else [body or b""])
    last = chunks is None or not isinstance(chunks[-1], float)
    left = len(chunks) if chunks is not None else 1

    async def receive() -> dict[str, Any]:
        nonlocal left
        while True:
            if not left:
                await asyncio.sleep(3600)
            part = next(parts)
            left -= 1
            if not isinstance(part, float):
                return {"type": "http.request", "body": part, "more_body": bool(left) or not last}
            await asyncio.sleep(part)

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    bare, _, query = path.partition("?")
    posts = body is not None or chunks is not None
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method or ("POST" if posts else "GET"),
        "scheme": "http",
        "path": root + bare,
        "raw_path": (root + bare).encode(),
        "root_path": root,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    await app(scope, receive, send)
    heard = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Heard(sent[0]["status"], heard, b"".join(message.get("body", b"") for message in sent[1:]))


def form(*files: tuple[str, bytes], field_name: str = "file") -> tuple[bytes, str]:
    """Return a form with files, and its Content-Type."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files
    ]
    return b"\r\n".join([*parts, b"--edge--\r\n"]), "multipart/form-data; boundary=edge"


@contextlib.contextmanager
def served(backend: Any, *, limits: Limits | None = None, token: str | None = None) -> Iterator[int]:
    """Serve a backend in a thread of this process and yield the port."""
    limits = limits or Limits(timeout_s=5)
    ready = threading.Event()
    with _listener("127.0.0.1", 0) as listener:
        server = _Server(_config(build_app(backend, limits=limits, token=token), limits), ready.set)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
