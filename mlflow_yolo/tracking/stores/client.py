"""Clients of a tracking store, and what their errors mean."""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.stores.addresses import is_http, redact, sqlite_path

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ClientFactory = Callable[[str], "MlflowClient"]

_REJECTED_STATUSES = frozenset({400, 409, 413, 422})
_STATUS_IN_TEXT = re.compile(r"error code (\d{3})")


class Undeliverable(WorkError):
    """The server cannot take records now; what is journaled stays journaled."""


class ServerSilent(Undeliverable):
    """Nobody answers at the tracking URI."""


def load_mlflow() -> None:
    """Import MLflow here and now.

    It must not be imported first by a background thread: while that lasts (some seconds), an `import mlflow` of the
    training's own thread can see a half-made module and fail ("partially initialized module 'mlflow'"; seen in 1 of 24
    starts), and Ultralytics or the user's code is what fails with it.
    """
    import mlflow.entities
    import mlflow.tracking  # noqa: F401

    import mlflow_yolo.tracking.stores.http_client  # noqa: F401


def connect(uri: str) -> "MlflowClient":
    """Return a client of the store at `uri`; a missing SQLite store is created first."""
    from mlflow.tracking import MlflowClient

    from mlflow_yolo.tracking.stores.store import ensure_store

    if sqlite_path(uri) is not None:
        ensure_store(uri)
    client = MlflowClient(tracking_uri=uri)
    if is_http(uri):
        from mlflow_yolo.tracking.stores.http_client import make_each_request_once

        return make_each_request_once(client)
    return client


def is_rejection(error: Exception) -> bool:
    """Return whether the server understood the request and refuses its content, so that trying again is useless."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        in_text = _STATUS_IN_TEXT.search(str(error))
        return (int(in_text[1]) if in_text else error.get_http_status_code()) in _REJECTED_STATUSES
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in _REJECTED_STATUSES
    return isinstance(error, TypeError | ValueError) and not isinstance(error, UnicodeError | requests.RequestException)


def undeliverable(error: Exception) -> Undeliverable:
    """Return what stops delivery now, in one line without passwords."""
    import requests

    silent = any(isinstance(cause, requests.Timeout | requests.ConnectionError) for cause in _causes(error))
    kind = ServerSilent if silent else Undeliverable
    return kind(f"the tracking store {'does not answer' if silent else 'refuses'}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """Return the error's text in one line of at most 300 characters, without passwords."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"\w+://\S+", lambda m: redact(m[0]), text)[:300]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
