"""Stores: made so that a kill cannot break them, and a sentence with a remedy for what can be wrong with them."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.exceptions import StoreError
from mlflow_yolo.tracking.stores.addresses import sqlite_path
from mlflow_yolo.tracking.stores.store import check_store, ensure_store, prepare_store, repair_store

OLD = 1_000_000_000


def edit(uri: str, *statements: str) -> Path:
    """Change a store behind MLflow's back and make it look old."""
    path = sqlite_path(uri)
    assert path is not None
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    os.utime(path, (OLD, OLD))
    return path


@pytest.fixture
def half_migrated(store: str) -> str:
    """A store as `kill -9` leaves it during MLflow's first migration: some tables, an early version, no experiment."""
    edit(
        store,
        "DELETE FROM experiments",
        "DROP TABLE trace_info",
        "UPDATE alembic_version SET version_num = '1a0cddfcaa16'",
    )
    return store


def test_a_ready_store_is_ready(store: str) -> None:
    assert ensure_store(store).reachable
    assert check_store(store).message.endswith("is ready")


@pytest.mark.slow
def test_two_processes_create_one_store_quietly(tmp_path: Path) -> None:
    code = f"from mlflow_yolo.tracking.stores.store import ensure_store; ensure_store('sqlite:///{tmp_path}/new/m.db')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in started] == [b"", b""]
    assert [process.returncode for process in started] == [0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path}/new/m.db")
    (experiment,) = client.search_experiments()
    client._tracking_client.store.engine.dispose()
    assert experiment.artifact_location == f"{tmp_path}/new/mlruns/0"
    assert sorted(p.name for p in (tmp_path / "new").iterdir() if p.suffix != ".lock") == ["m.db"]


def test_checking_creates_nothing(tmp_path: Path) -> None:
    assert "created on first use" in check_store(f"sqlite:///{tmp_path}/m.db").message
    assert not (tmp_path / "m.db").exists()


def test_a_half_migrated_store_is_named_with_its_remedy_and_moved_aside(half_migrated: str) -> None:
    path = sqlite_path(half_migrated)
    assert path is not None
    with pytest.raises(StoreError, match=re.escape(str(path)) + r".*half-migrated.*doctor --fix"):
        ensure_store(half_migrated)
    aside = repair_store(half_migrated)
    assert aside is not None
    assert aside.exists()
    assert not path.exists()
    assert repair_store(half_migrated) is None


def test_a_store_that_holds_runs_is_never_moved(store: str, client: MlflowClient) -> None:
    client.create_run("0")
    path = edit(
        store, "PRAGMA foreign_keys = OFF", "DELETE FROM experiments", "UPDATE alembic_version SET version_num = 'x'"
    )
    with pytest.raises(StoreError, match=r"holds 1 runs.*mlflow db upgrade"):
        repair_store(store)
    assert path.exists()


def test_a_whole_store_needs_no_repair(store: str) -> None:
    assert repair_store(store) is None
    assert repair_store("http://h:1") is None


def test_the_schema_of_another_mlflow_is_named_with_its_remedy(store: str) -> None:
    edit(store, "UPDATE alembic_version SET version_num = '0123456789ab'")
    with pytest.raises(StoreError, match="mlflow db upgrade sqlite:///"):
        check_store(store)


def test_a_locked_store_is_named(store: str) -> None:
    path = sqlite_path(store)
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            check_store(store, busy_timeout_s=0.1)


def test_what_is_no_mlflow_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all " * 100)
    with pytest.raises(StoreError, match="not a SQLite store"):
        check_store(f"sqlite:///{tmp_path}/text.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE cats (name)")
    with pytest.raises(StoreError, match="some other program"):
        ensure_store(f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(StoreError, match="is a directory"):
        check_store(f"sqlite:///{tmp_path}")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file"))):
        check_store(f"sqlite:///{tmp_path}/file/m.db")
    with pytest.raises(StoreError, match="cannot be written"):
        check_store("sqlite:////proc/m.db")


@pytest.mark.parametrize("uri", ["file:///runs", "./mlruns"])
def test_folder_stores_are_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(StoreError, match="migrate-filestore"):
        check_store(uri)


def test_an_unknown_scheme_is_named_and_a_password_is_not() -> None:
    with pytest.raises(StoreError, match="'gopher'") as raised:
        check_store("gopher://ann:s3cret@h")
    assert "s3cret" not in str(raised.value)


def test_a_silent_server_is_no_error_but_a_sentence(dead_uri: str, tmp_path: Path) -> None:
    report = ensure_store(dead_uri)
    assert not report.reachable
    notice = prepare_store(dead_uri, directory=tmp_path)
    assert notice == (
        f"tracking server {dead_uri} does not answer; values are journaled under {tmp_path} and sent when it is back, "
        f"or by: mlflow-yolo replay {tmp_path}"
    )


@pytest.mark.slow
def test_a_store_whose_creation_was_killed_opens_afterwards(tmp_path: Path) -> None:
    code = f"""if True:
        from mlflow_yolo.tracking.stores import store
        import mlflow.store.tracking.sqlalchemy_store
        print("go", flush=True)
        store.ensure_store('sqlite:///{tmp_path}/m.db')"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()
    while not list(tmp_path.glob(".m.db.new-*")):
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "m.db").exists()
    assert ensure_store(f"sqlite:///{tmp_path}/m.db").reachable
    assert not list(tmp_path.glob(".m.db.new-*"))


def test_an_empty_file_becomes_a_store(store: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    empty = tmp_path / "new" / "m.db"
    empty.touch()
    os.utime(empty, (OLD, OLD))
    assert "created on first use" in check_store(f"sqlite:///{empty}").message
    shutil.copyfile(sqlite_path(store) or "", empty)
    assert check_store(f"sqlite:///{empty}").message.endswith("is ready")
