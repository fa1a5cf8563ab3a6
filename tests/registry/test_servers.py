"""From a benchmark to an answer over HTTP, against servers that teams run: PostgreSQL, users with rights."""

import contextlib
import io
import json
import re
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from mlflow import MlflowClient

from benchmarks.ingest import tracking_server
from benchmarks.postgres import cluster, missing_part
from mlflow_yolo.cli import main
from mlflow_yolo.compression.export import export_onnx
from mlflow_yolo.datasets.digits import generate
from mlflow_yolo.registry.fetching import fetch
from mlflow_yolo.runtime.detector import Detector
from mlflow_yolo.variant import read_variant

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], NoReturn]
GATES = "speedup: off\naccuracy_drop: off\nclass_drop: off\nlatency: off\n"
"""What a benchmark of two images cannot decide."""


@dataclass(frozen=True)
class Benchmarked:
    """A variant that was measured, and where: nothing of it lies on any server."""

    folder: Path
    variant: Path
    picture: Path


@pytest.fixture(scope="module")
def benchmarked(tmp_path_factory: pytest.TempPathFactory) -> Benchmarked:
    """Return the shipped detector, exported and measured a little."""
    root = tmp_path_factory.mktemp("benchmarked")
    data = generate("digits", cache_dir=root, n_train=2, n_val=2, n_test=4)
    (root / "fp32-onnx").mkdir()
    export_onnx("digits", root / "fp32-onnx", imgsz=128)
    words = ["benchmark", "--variants", str(root / "fp32-onnx"), "--data", str(data), "--runs", "2", "--rounds", "1"]
    words += ["--output", str(root / "out"), "--tracking-uri", f"sqlite:///{root / 'own.db'}"]
    assert run(*words)[0] == 0
    (root / "gates.yaml").write_text(GATES)
    return Benchmarked(root / "out", root / "fp32-onnx", sorted((data.parent / "images" / "test").iterdir())[0])


def run(*words: str) -> tuple[int, str, str]:
    """Run the command line and return exit code, output and standard error."""
    shown, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(error), pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0), shown.getvalue(), error.getvalue()


def register(benchmarked: Benchmarked, uri: str, name: str = "cells") -> tuple[int, str, str]:
    return run("register", "--name", name, "--variants", str(benchmarked.folder), "--tracking-uri", uri)


def promote(benchmarked: Benchmarked, uri: str, version: str = "1") -> tuple[int, str, str]:
    gates = ["--gates", str(benchmarked.folder.parent / "gates.yaml")]
    return run("promote", "--name", "cells", "--version", version, *gates, "--tracking-uri", uri)


@contextlib.contextmanager
def served(uri: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start `mlflow-yolo serve` and yield its address and process."""
    command = [sys.executable, "-m", "mlflow_yolo", "serve", "models:/cells@champion-cpu", "--port", "0"]
    process = subprocess.Popen([*command, "--tracking-uri", uri], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", line := process.stdout.readline())
        assert found, line
        yield found[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answer(address: str, body: bytes | None = None) -> dict[str, object]:
    asked = urllib.request.Request(address, body, {"Content-Type": "image/png"} if body else {})
    with urllib.request.urlopen(asked, timeout=60) as found:
        return dict(json.loads(found.read()))


def test_what_was_measured_is_registered_promoted_fetched_and_served_from_a_server_with_postgresql(
    benchmarked: Benchmarked, tmp_path: Path, missing: Missing
) -> None:
    if what := missing_part():
        missing("PostgreSQL", what)
    sha256 = read_variant(benchmarked.variant).sha256
    with cluster() as database, tracking_server(database, tmp_path) as uri:
        code, shown, error = register(benchmarked, uri)
        assert (code, error) == (0, "")
        assert register(benchmarked, uri)[0] == 0
        [version] = MlflowClient(uri).search_model_versions("name='cells'")
        assert version.tags["model.sha256"] == sha256

        code, shown, error = promote(benchmarked, uri)
        assert (code, error) == (0, ""), shown
        champion = MlflowClient(uri).get_model_version_by_alias("cells", "champion-cpu")
        assert champion.version == version.version

        fetched = fetch("models:/cells@champion-cpu", tracking_uri=uri, cache=tmp_path / "cache")
        assert (fetched.version, fetched.sha256) == (version.version, sha256)
        file = read_variant(benchmarked.variant).file
        assert (fetched.folder / file).read_bytes() == (benchmarked.variant / file).read_bytes()
        assert (fetched.benchmark / "record.json").is_file()

        with served(uri) as (address, process):
            told = answer(f"{address}/version")
            assert (told["version"], told["sha256"], told["alias"]) == (version.version, sha256, "champion-cpu")
            found = answer(f"{address}/predict", benchmarked.picture.read_bytes())["detections"]
            expected = Detector(benchmarked.variant)(benchmarked.picture)
            assert isinstance(found, list)
            assert len(found) == len(expected) > 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0

        code, _, error = run("rollback", "--name", "cells", "--tracking-uri", uri)
        assert code == 2  # there was no champion before this one
        assert error.count("\n") == 1


@dataclass(frozen=True)
class Guarded:
    """A server that knows users: `reader` may read, `stranger` may not even do that with `cells`."""

    uri: str
    password: str

    def as_user(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", self.password)


@pytest.fixture
def guarded(
    benchmarked: Benchmarked, tmp_path: Path, missing: Missing, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Guarded]:
    """Return a server with a champion of `cells`, and one before it."""
    if find_spec("flask_wtf") is None:
        missing("Flask-WTF", "pip install 'mlflow[auth]'")
    from mlflow.server.auth.client import AuthServiceClient

    password = secrets.token_urlsafe(16)
    (tmp_path / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{tmp_path / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    more = ["--app-name", "basic-auth"]
    database = f"sqlite:///{tmp_path / 'server.db'}"
    with tracking_server(database, tmp_path, more=more, environment=environment) as uri:
        assert register(benchmarked, uri)[0] == 0
        assert promote(benchmarked, uri)[0] == 0
        first = MlflowClient(uri).get_model_version("cells", "1")
        model_id = first.source.removeprefix("models:/")
        MlflowClient(uri).create_model_version("cells", first.source, first.run_id, tags=first.tags, model_id=model_id)
        assert promote(benchmarked, uri, "2")[0] == 0
        users = AuthServiceClient(uri)
        for name in ("reader", "stranger"):
            users.create_user(name, password)
        users.grant_user_permission("stranger", "registered_model", "cells", "DENY")
        yield Guarded(uri, password)


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # mlflow.server imports it
def test_a_user_without_rights_gets_one_clear_line_and_moves_nothing(
    guarded: Guarded, benchmarked: Benchmarked, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: dict[str, Callable[[], tuple[int, str, str]]] = {
        "register": lambda: register(benchmarked, guarded.uri, "others"),
        "promote": lambda: promote(benchmarked, guarded.uri),
        "rollback": lambda: run("rollback", "--name", "cells", "--tracking-uri", guarded.uri),
        "serve": lambda: run("serve", "models:/cells@champion-cpu", "--tracking-uri", guarded.uri, "--port", "0"),
    }
    for user, refused in {"reader": ["register", "promote", "rollback"], "stranger": list(commands)}.items():
        guarded.as_user(user, monkeypatch)
        for name in refused:
            code, shown, error = commands[name]()
            assert (user, name, code, error.count("\n")) == (user, name, 2, 1), shown + error
            assert f"user {user} may not (403)" in error
            assert guarded.password not in error
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    for name, command in commands.items():
        code, shown, error = command()
        assert (name, code, error.count("\n")) == (name, 2, 1), shown + error
        assert "asks for a user and a password that it knows" in error

    guarded.as_user("admin", monkeypatch)
    client = MlflowClient(guarded.uri)
    assert client.get_model_version_by_alias("cells", "champion-cpu").version == "2"
    assert len(client.search_model_versions("name='cells'")) == 2
    assert [model.name for model in client.search_registered_models()] == ["cells"]

    guarded.as_user("reader", monkeypatch)  # who may read may serve
    with served(guarded.uri) as (address, _):
        assert answer(f"{address}/version")["version"] == "2"
