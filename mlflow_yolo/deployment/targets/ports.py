"""Ports of this machine: whether one can be listened at, and which one is free."""

import socket

from mlflow_yolo.exceptions import ArgumentError


def free_port(host: str) -> int:
    """Return a port at which nobody listens; somebody may take it before you do.

    Raises:
        ArgumentError: `host` is no address of this machine.
    """
    with _bound(host, 0) as taken:
        return int(taken.getsockname()[1])


def check_free(host: str, port: int) -> None:
    """Raise ArgumentError where nobody can listen at a port: it is taken, not allowed, or `host` is not here."""
    _bound(host, port).close()


def is_free(host: str, port: int) -> bool:
    """Return whether one can listen at a port."""
    try:
        check_free(host, port)
    except ArgumentError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ArgumentError(f"host={host} is no address: {error.strerror or error}. Use 127.0.0.1.") from None
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: old connections do not count
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise ArgumentError(
            f"nobody can listen at {host}, port {port}: {error.strerror or error}. Choose another port or host."
        ) from None
    return taken
