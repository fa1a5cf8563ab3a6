"""The registry's client, and what its errors mean."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError, StoreError
from mlflow_yolo.tracking.stores.addresses import answers, is_http, redact, responds, sqlite_path
from mlflow_yolo.tracking.stores.client import ServerSilent, connect, one_line, undeliverable
from mlflow_yolo.tracking.stores.store import ensure_store
from mlflow_yolo.tracking.stores.target import resolve_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_STATUS = re.compile(r"\b(?:error code|status code|status) (\d{3})\b|\b([45]\d\d) (?:Client|Server) Error")
_CODE = re.compile(r"^[A-Z_]+: ")
_ANSWER_S = 10.0
_NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_NOT_POSSIBLE = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"})


class RegistryDown(StoreError):
    """Nobody answers where the registry should be."""


def open_registry(tracking_uri: str | None = None) -> "MlflowClient":
    """Return a client of a tracking store and its registry; every request to a server is made once.

    Args:
        tracking_uri: The store; None for `MLFLOW_TRACKING_URI`, else `./mlflow.db`.

    Raises:
        RegistryDown: Nobody answers there (asked at once, not after MLflow's four minutes).
        StoreError: The store cannot be used.
    """
    uri = resolve_uri(tracking_uri)
    if sqlite_path(uri) is None:
        ensure_store(uri)  # a scheme that is none, a folder
        if not (responds(uri, timeout_s=_ANSWER_S) if is_http(uri) else answers(uri)):
            raise RegistryDown(
                f"the registry at {redact(uri)} does not answer. Start it, or name another tracking URI."
            )
    with plain_errors(f"open {redact(uri)}"):
        client = connect(uri)
        if is_http(str(client._registry_uri)):
            from mlflow_yolo.registry.http_registry import make_each_registry_request_once

            make_each_registry_request_once(client)
    return client


@contextmanager
def plain_errors(doing: str, *, needs: str = "EDIT") -> Iterator[None]:
    """Turn MLflow's errors into ours, each one line without passwords.

    Args:
        doing: What is being done, to follow "cannot": `set the alias champion-cpu of cells`.
        needs: The permission that MLflow's own user management asks for: READ, EDIT or MANAGE.

    Raises:
        RegistryDown: Nobody answers.
        StoreError: The server knows no such user, the user may not do it, or something broke.
        ArgumentError: What is named does not exist, or MLflow does not take a value.
    """
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowYoloError:
        raise
    except (MlflowException, requests.RequestException) as error:
        raise _plain(error, doing, needs) from error


def _plain(error: Exception, doing: str, needs: str) -> MlflowYoloError:
    status, text = _status_of(error), _CODE.sub("", one_line(error))
    if (refused := denied(status, text, doing, needs=needs)) is not None:
        return refused
    code = getattr(error, "error_code", "")
    if code in _NOT_THERE or (status == 404 and code != "ENDPOINT_NOT_FOUND" and "artifact" in text.lower()):
        return ArgumentError(f"cannot {doing}: {text.rstrip('.')}. Check its name or number.")
    if isinstance(undeliverable(error), ServerSilent):
        return RegistryDown(f"cannot {doing}: the server does not answer. {_short(text)}")
    if code in _NOT_POSSIBLE:
        return ArgumentError(f"cannot {doing}: {text}")
    return StoreError(f"cannot {doing}: {text}")


def denied(status: int, text: str, doing: str, *, needs: str = "EDIT") -> StoreError | None:
    """Return what an answer of 401 or 403 means, None for any other.

    Args:
        status: Of HTTP.
        text: What the server said.
        doing: See `plain_errors`, as for the next.
        needs: See there.
    """
    if status == 401:
        return StoreError(
            f"cannot {doing}: the server asks for a user and a password that it knows ({_user()}). "
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if status == 403 and "host header" in text.lower():
        return StoreError(
            f"cannot {doing}: the server takes no requests under this host name. "
            "Add it to the server's MLFLOW_SERVER_ALLOWED_HOSTS."
        )
    if status == 403:
        return StoreError(
            f"cannot {doing}: {_user()} may not (403). Ask the server's owner for the permission {needs}."
        )
    return None


def _status_of(error: Exception) -> int:
    """Return the HTTP status behind an error, 0 for none."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    if found := _STATUS.search(str(error)):
        return int(found[1] or found[2])
    status = getattr(error, "get_http_status_code", None)
    return int(status()) if status is not None else 0


def _user() -> str:
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return f"user {name}"
    name = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).username
    return f"user {name}" if name else "no user was given"


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:160]}…"
