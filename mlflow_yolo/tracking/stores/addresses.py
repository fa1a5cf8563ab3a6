"""Tracking URIs: what may be shown, what may be stored, where they point, and whether anybody answers there."""

import os
import re
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SQLITE_PREFIX = "sqlite:///"
# An HTTP password ends at the last @ of the network location; SQLAlchemy's ends at the first @ and may hold slashes.
_HTTP_PASSWORD = re.compile(r"^(https?://[^:/@?#]*):[^/?#]*@")
_DATABASE_PASSWORD = re.compile(r"^([\w+.-]+://[^:/@]*):[^@]*@")
_SECRET_QUERY = re.compile(r"([?&]\w*(?:password|secret|token)\w*=)[^&#]*", re.IGNORECASE)


def redact(uri: str) -> str:
    """Return `uri` with its password replaced by `***`, fit to be shown, logged or raised."""
    return _with_password(uri, "***")


def without_password(uri: str) -> str:
    """Return `uri` with its password removed, fit to be stored in a journal."""
    return _with_password(uri, None)


def with_password(stored: str) -> str:
    """Return a stored URI as `MLFLOW_TRACKING_URI` spells it, if both name the same address; else `stored`.

    A journal holds no password, so it comes back from the environment (for HTTP servers MLflow itself also reads
    `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`).
    """
    current = os.environ.get("MLFLOW_TRACKING_URI", "")
    return current if current and without_password(current) == stored else stored


def absolute(uri: str) -> str:
    """Return `uri` with a relative SQLite path made absolute, so that a later `os.chdir` does not move the store."""
    path = sqlite_path(uri)
    return uri if path is None else f"{_SQLITE_PREFIX}{path.absolute()}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite store, or None for any other store (and for SQLite in memory)."""
    if not uri.startswith(_SQLITE_PREFIX):
        return None
    name = unquote(uri[len(_SQLITE_PREFIX) :].split("?", 1)[0])
    return None if name in ("", ":memory:") else Path(name)


def is_http(uri: str) -> bool:
    """Return whether `uri` names an MLflow tracking server."""
    return uri.startswith(("http://", "https://"))


def answers(uri: str, *, timeout_s: float = 1.0) -> bool:
    """Return whether somebody listens where `uri` points; true where that cannot be asked quickly.

    MLflow's own client blocks 244 s on a refused connection, so this is asked before it is called. Behind an HTTP
    proxy the address itself need not be reachable, so the proxy is asked instead.
    """
    target = urlsplit(_proxy_of(uri) or uri)
    port = _port(target)
    if target.hostname is None or port is None:
        return True
    try:
        with socket.create_connection((target.hostname, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def responds(uri: str, *, timeout_s: float = 3.0) -> bool:
    """Return whether whoever listens at `uri` also says something; a black hole accepts connections and never does.

    Any HTTP status counts. Where that cannot be asked (databases, HTTPS through a proxy) listening has to do.
    """
    target, proxy = urlsplit(uri), _proxy_of(uri)
    if not answers(uri):
        return False
    if not is_http(uri) or target.hostname is None or (proxy and target.scheme == "https"):
        return True
    via = urlsplit(proxy or uri)
    connection = _connection(via, timeout_s)
    path = f"{target.path.rstrip('/')}/health"
    try:
        connection.request("HEAD", f"http://{target.netloc.rpartition('@')[2]}{path}" if proxy else path)
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _connection(target: SplitResult, timeout_s: float) -> HTTPConnection:
    """Return a connection without certificate checks: it carries no secret and its answer is not read."""
    assert target.hostname is not None
    if target.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection(target.hostname, _port(target), timeout=timeout_s, context=context)
    return HTTPConnection(target.hostname, _port(target), timeout=timeout_s)


def _proxy_of(uri: str) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(uri)
    if not is_http(uri) or parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    proxy = getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or _DEFAULT_PORTS.get(parts.scheme.split("+")[0])
    except ValueError:
        return None


def _with_password(uri: str, replacement: str | None) -> str:
    with_query = _SECRET_QUERY.sub(lambda m: m[1] + (replacement or ""), uri)
    pattern = _HTTP_PASSWORD if is_http(uri) else _DATABASE_PASSWORD
    return pattern.sub(lambda m: m[1] + ("" if replacement is None else f":{replacement}") + "@", with_query, count=1)
