"""What of a tracking URI is shown, stored and asked."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_yolo.tracking.stores.addresses import (
    absolute,
    answers,
    redact,
    responds,
    sqlite_path,
    with_password,
    without_password,
)


@pytest.mark.parametrize(
    ("uri", "shown", "stored"),
    [
        ("http://ann:s3@h:5000/x", "http://ann:***@h:5000/x", "http://ann@h:5000/x"),
        ("https://ann:p@ss@h", "https://ann:***@h", "https://ann@h"),
        ("postgresql+psycopg://u:a/b@db/x", "postgresql+psycopg://u:***@db/x", "postgresql+psycopg://u@db/x"),
        (
            "postgresql://db/x?user=u&password=a",
            "postgresql://db/x?user=u&password=***",
            "postgresql://db/x?user=u&password=",
        ),
        ("http://h:5000", "http://h:5000", "http://h:5000"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("databricks", "databricks", "databricks"),
    ],
)
def test_a_password_is_neither_shown_nor_stored(uri: str, shown: str, stored: str) -> None:
    assert redact(uri) == shown
    assert without_password(uri) == stored


def test_a_stored_uri_gets_its_password_back_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3@h:5000")
    assert with_password("http://ann@h:5000") == "http://ann:s3@h:5000"
    assert with_password("http://other:5000") == "http://other:5000"


def test_a_relative_sqlite_path_is_fixed_to_this_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///runs/m.db") == f"sqlite:///{tmp_path}/runs/m.db"
    assert absolute(absolute("sqlite:///m.db")) == absolute("sqlite:///m.db")
    assert absolute("http://h") == "http://h"


def test_only_sqlite_files_have_a_path() -> None:
    assert sqlite_path("sqlite:////a/b%20c.db") == Path("/a/b c.db")
    assert sqlite_path("sqlite://") is None
    assert sqlite_path("sqlite:///:memory:") is None
    assert sqlite_path("http://h") is None


def test_a_listening_address_answers_and_a_closed_one_does_not(dead_uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert answers(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert not answers(dead_uri)


def test_what_has_no_address_counts_as_answering() -> None:
    assert answers("sqlite:///x.db")
    assert answers("databricks")


def test_a_listener_that_never_speaks_answers_but_does_not_respond() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert answers(uri)
        assert not responds(uri, timeout_s=0.05)


@contextlib.contextmanager
def speaker(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Listens, says `answer` to whoever asks something, and notes what was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    peer, _address = listener.accept()
                    with peer:
                        if request := peer.recv(1000):  # `responds` first asks whether anybody listens
                            asked.append(request)
                            peer.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def test_any_status_is_a_response_and_what_cannot_be_asked_counts_as_one() -> None:
    with speaker(REFUSAL) as (address, asked):
        assert responds(f"http://ann:s3cret@{address}/mlflow/")
    assert asked[0].startswith(b"HEAD /mlflow/health ")
    assert b"s3cret" not in asked[0]
    assert responds("sqlite:///x.db")
    assert responds("databricks")


def test_what_speaks_no_http_does_not_respond() -> None:
    with speaker(b"220 mail\r\n") as (address, _):
        assert not responds(f"http://{address}")
        assert not responds(f"https://{address}")


def test_a_server_behind_a_proxy_is_asked_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with speaker(REFUSAL) as (address, asked):
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", address)
        assert responds("http://ann:s3cret@tracking.example/mlflow")
        assert responds("https://tracking.example")  # whoever listens at the proxy has to do
    assert [request.split(b" HTTP")[0] for request in asked] == [b"HEAD http://tracking.example/mlflow/health"]


def test_nobody_there_does_not_respond(dead_uri: str) -> None:
    assert not responds(dead_uri)
