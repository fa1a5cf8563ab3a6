"""The registry's client and what its errors mean, against servers that misbehave on purpose."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST

from mlflow_yolo.exceptions import ArgumentError, StoreError
from mlflow_yolo.registry import store as registry_store
from mlflow_yolo.registry.store import RegistryDown, open_registry, plain_errors


@contextmanager
def server(status: int, body: bytes = b"") -> Iterator[tuple[str, list[str]]]:
    """Serve the same answer to every request; yields the address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if self.path.endswith("/health"):
                self.send_response(200)
                self.end_headers()
                return
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_HEAD = answer

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as opened:
        thread = threading.Thread(target=opened.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.server_address[1]}", asked
        finally:
            opened.shutdown()
            thread.join()


def error_of(status: int, body: bytes = b"") -> tuple[Exception, list[str]]:
    doing = "set the alias champion-cpu of cells"
    with server(status, body) as (uri, asked):
        client = open_registry(uri)
        with pytest.raises((StoreError, ArgumentError)) as error, plain_errors(doing):
            client.set_registered_model_alias("cells", "champion-cpu", "3")
    assert "\n" not in str(error.value)
    return error.value, asked


def test_a_registry_in_a_file_is_made_where_there_is_none(tmp_path: Any) -> None:
    client = open_registry(f"sqlite:///{tmp_path / 'new.db'}")
    assert client.search_registered_models() == []
    client._tracking_client.store.engine.dispose()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_each_request_is_made_once_however_the_server_fails(status: int) -> None:
    error, asked = error_of(status, b"out of order")
    assert isinstance(error, StoreError)
    assert len(asked) == 1
    assert "cannot set the alias champion-cpu of cells" in str(error)


def test_a_user_without_rights_is_named_with_the_permission_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "mia")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not to be shown")
    error, _ = error_of(403, b"Permission denied")
    assert str(error) == (
        "cannot set the alias champion-cpu of cells: user mia may not (403). "
        "Ask the server's owner for the permission EDIT."
    )


def test_a_server_that_wants_a_password_is_said_so() -> None:
    error, _ = error_of(401, b"You are not authenticated.")
    assert isinstance(error, StoreError)
    assert "no user was given" in str(error)
    assert "MLFLOW_TRACKING_PASSWORD" in str(error)


def test_a_host_name_that_the_server_does_not_take_is_no_lack_of_rights() -> None:
    error, _ = error_of(403, b"Invalid Host header - possible DNS rebinding attack detected")
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" in str(error)


def test_what_does_not_exist_is_the_users_mistake() -> None:
    body = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=cells not found"}'
    error, _ = error_of(404, body)
    assert isinstance(error, ArgumentError)
    assert "name=cells not found" in str(error)
    assert "RESOURCE_DOES_NOT_EXIST" not in str(error)


def test_what_is_no_mlflow_server_is_not_taken_for_a_missing_model() -> None:
    error, _ = error_of(404, b"<html>Not found</html>")
    assert isinstance(error, StoreError)
    error, _ = error_of(200, b"<html>Welcome</html>")
    assert isinstance(error, StoreError)


@pytest.mark.parametrize(
    ("cause", "kind", "named"),
    [
        (MlflowException("Registered model alias x not found.", INVALID_PARAMETER_VALUE), ArgumentError, "alias x"),
        (MlflowException("no such run", RESOURCE_DOES_NOT_EXIST), ArgumentError, "no such run"),
        (MlflowException("not yours", PERMISSION_DENIED), StoreError, "READ"),
        (MlflowException("database is locked"), StoreError, "database is locked"),
        (requests.ConnectionError("refused by http://mia:secret@host/x"), RegistryDown, "does not answer"),
        (requests.ReadTimeout("read timed out"), RegistryDown, "does not answer"),
    ],
    ids=str,
)
def test_errors_are_one_line_of_their_kind_without_passwords(
    cause: Exception, kind: type[Exception], named: str
) -> None:
    with pytest.raises(kind, match=named) as error, plain_errors("read models:/cells/7", needs="READ"):
        raise cause
    assert type(error.value) is kind
    assert str(error.value).startswith("cannot read models:/cells/7: ")
    assert "secret" not in str(error.value)


def test_mistakes_of_ours_are_not_turned_into_the_users() -> None:
    with pytest.raises(ZeroDivisionError), plain_errors("divide"):
        raise ZeroDivisionError
    own = ArgumentError("ours already")
    with pytest.raises(ArgumentError) as error, plain_errors("anything"):
        raise own
    assert error.value is own


@pytest.mark.parametrize("behaves", ["refuses", "is silent"])
def test_a_registry_that_is_down_is_said_so_at_once(behaves: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_store, "_ANSWER_S", 0.2)  # a silent one is waited for; the user's wait is ten seconds
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if behaves == "is silent":
            listening.listen()
        started = time.monotonic()
        with pytest.raises(RegistryDown, match="does not answer"):
            open_registry(f"http://mia:secret@127.0.0.1:{listening.getsockname()[1]}")
        assert time.monotonic() - started < 5


def test_an_address_that_is_no_store_is_refused() -> None:
    with pytest.raises(StoreError, match="unknown scheme 'ftp'"):
        open_registry("ftp://host/registry")


def test_reading_an_alias_asks_the_server_once() -> None:
    body = b'{"model_version": {"name": "cells", "version": "3", "status": "READY"}}'
    with server(200, body) as (uri, asked):
        assert open_registry(uri).get_model_version_by_alias("cells", "champion-cpu").version == "3"
    assert [path.split("?")[0] for path in asked] == ["/api/2.0/mlflow/registered-models/alias"]
