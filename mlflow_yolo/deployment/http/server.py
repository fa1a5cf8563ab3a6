"""A backend behind HTTP, until somebody ends it.

    serve(lambda: open_backend("models:/cells@champion-cpu"), host="127.0.0.1", port=8000)

The address is taken first, so that a taken one is known before a model is loaded; connections are accepted once it is
warm. SIGTERM and Ctrl-C: new connections are refused, requests in flight are answered, and `serve` returns.
"""

import contextlib
import errno
import ipaddress
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.http.wire import BoundedProtocol
from mlflow_yolo.deployment.inference.backend import Backend, Loaded
from mlflow_yolo.exceptions import ArgumentError

_KEEP_ALIVE_S = 75  # longer than clients keep an idle connection, so that it is they who close it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    open_backend: Callable[[], Backend],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    token: str | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is in flight, close the backend and return.

    Args:
        open_backend: Opens what computes; closed here.
        host: Address to listen at.
        port: Its port; 0 for any that is free.
        limits: What one request may ask; None for `Limits()`.
        token: What `Authorization: Bearer` has to say; None for anybody.
        announce: Called with lines for the user: one that says where it listens and what it serves, and before it a
            warning where anybody who reaches the machine may ask.

    Raises:
        ArgumentError: The address is taken or none of this machine, or the token cannot be sent.
    """
    limits = limits or Limits()
    with _listener(host, port) as listener:
        if token is None and not _is_loopback(listener.getsockname()[0]):
            announce(
                f"warning: {host} is reached from other machines, and without a token anybody there may ask. "
                "Set MLFLOW_YOLO_TOKEN."
            )
        backend = open_backend()
        try:
            app = build_app(backend, limits=limits, token=token)
            _quiet()
            line = f"serving {label(backend.status().serving)} on {_url(listener)}"
            with _address_errors(host, port):
                _Server(_config(app, limits), lambda: announce(line)).run(sockets=[listener])
        finally:
            backend.close(limits.timeout_s)


def label(model: Loaded) -> str:
    """Return which model it is, in words: name, version, alias, kind, the beginning of its digest."""
    version = f" version {model.version}" if model.version is not None else ""
    alias = f" ({model.alias})" if model.alias is not None else ""
    return f"{model.name}{version}{alias}, {model.kind}, sha256 {model.sha256[:12]}…,"


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens, and ends without raising the signal that ended it."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _config(app: object, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(2 * limits.timeout_s) + 1,  # to send a body, and then to be answered
    )


@contextlib.contextmanager
def _listener(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound but does not listen: until a model is loaded, who asks is refused."""
    if not 0 <= port <= 65535:
        raise ArgumentError(f"port={port} is none. Use 0 (any) to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"host={host} is no address of this machine: {error}. Use 127.0.0.1.") from None
    with listener:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _address_errors(host, port):
            listener.bind(address)
        yield listener


@contextlib.contextmanager
def _address_errors(host: str, port: int) -> Iterator[None]:
    """Say in one line why an address cannot be had; another server may take it between binding and listening."""
    try:
        yield
    except OSError as error:
        reason = {
            errno.EADDRINUSE: f"port={port} is taken by another process. Use another one, or 0 for any.",
            errno.EACCES: f"port={port} may not be used by this user. Use one from 1024.",
            errno.EADDRNOTAVAIL: f"host={host} is no address of this machine. Use 127.0.0.1.",
        }.get(error.errno or 0)
        if reason is None:
            raise
        raise ArgumentError(reason) from None


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("%")[0]).is_loopback


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _quiet() -> None:
    """Let a client's mistakes be told to the client, and not be written into the log one by one."""
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)
