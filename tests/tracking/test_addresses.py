"""What of a tracking URI is shown, stored and asked."""

import socket
from pathlib import Path

import pytest

from mlflow_yolo.tracking.addresses import absolute, answers, redact, sqlite_path, with_password, without_password


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
