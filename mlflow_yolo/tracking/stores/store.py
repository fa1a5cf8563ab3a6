"""Tracking stores: created so that a kill cannot break them, checked with a sentence for each thing that can be wrong.

MLflow's first migration of a SQLite file takes seconds and is not transactional. Killed in the middle (tried: after
0.1, 0.3 and 0.5 s) it leaves a file that every later MLflow refuses: "table already exists", "duplicate column".
"""

import contextlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from mlflow_yolo.exceptions import StoreError
from mlflow_yolo.tracking.stores.addresses import absolute, answers, is_http, redact, sqlite_path

_SQL_SCHEMES = frozenset({"postgresql", "mysql", "mssql"})
_BUSY_TIMEOUT_S = 5.0
_CREATE_TIMEOUT_S = 60.0
_SETTLED_S = 5.0

State = Literal["missing", "half-migrated", "other-version", "ready"]


@dataclass(frozen=True)
class StoreReport:
    """What was found at a tracking URI.

    Attributes:
        uri: The URI, without password.
        reachable: Whether it can take values now; a silent server is no error, values are journaled meanwhile.
        message: One sentence for people.
    """

    uri: str
    reachable: bool
    message: str


def prepare_store(tracking_uri: str, *, directory: Path | None = None) -> str:
    """Make the store ready (see `ensure_store`) and return what the user should know: empty, or that it is silent.

    Raises:
        StoreError: The store cannot be used; the message names the remedy.
    """
    report = ensure_store(tracking_uri, journal_directory=directory)
    return "" if report.reachable else report.message


def ensure_store(tracking_uri: str, *, journal_directory: Path | None = None) -> StoreReport:
    """Create a SQLite store that does not exist yet, then check as `check_store` does.

    The store is migrated under a temporary name in the same folder and linked into place when it is whole.

    Raises:
        StoreError: The store cannot be used; the message names the remedy.
    """
    uri = absolute(tracking_uri)
    path = sqlite_path(uri)
    if path is not None:
        _require_writable(path)
        if _state(path, wait=True) == "missing":
            _create_once(path)
    return check_store(uri, journal_directory=journal_directory)


def check_store(
    tracking_uri: str, *, journal_directory: Path | None = None, busy_timeout_s: float = _BUSY_TIMEOUT_S
) -> StoreReport:
    """Say whether the store at `tracking_uri` can be used.

    Args:
        tracking_uri: Any tracking URI.
        journal_directory: Named in the sentence about a silent server.
        busy_timeout_s: How long another process may hold a SQLite store before it counts as locked.

    Raises:
        StoreError: The store cannot be used; the message names the remedy.
    """
    uri = absolute(tracking_uri)
    if (path := sqlite_path(uri)) is not None:
        return _check_sqlite(path, uri, busy_timeout_s)
    scheme = urlsplit(uri).scheme.split("+")[0]
    if not is_http(uri) and scheme not in _SQL_SCHEMES and not _is_registered(scheme, uri):
        raise StoreError(_unusable_scheme(scheme, uri))
    if answers(uri):
        return StoreReport(redact(uri), True, f"tracking server {redact(uri)} answers")
    where = journal_directory or "the run's directory"
    return StoreReport(
        redact(uri),
        False,
        f"tracking server {redact(uri)} does not answer; values are journaled under {where} and sent when it is back, "
        f"or by: mlflow-yolo replay {journal_directory or '<directory>'}",
    )


def repair_store(tracking_uri: str) -> Path | None:
    """Move a half-migrated SQLite store that holds no runs aside, so that a whole one can be created in its place.

    Returns:
        Where the file went, None if there was nothing to repair.

    Raises:
        StoreError: The file holds runs; they are not moved.
    """
    path = sqlite_path(absolute(tracking_uri))
    if path is None or _state(path, wait=True) != "half-migrated":
        return None
    if n_runs := _count(path, "runs"):
        raise StoreError(f"{path} holds {n_runs} runs: back it up and run: mlflow db upgrade sqlite:///{path}")
    aside = path.with_name(f"{path.name}.half-migrated-{time.strftime('%Y%m%d-%H%M%S')}")
    path.rename(aside)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    return aside


def _check_sqlite(path: Path, uri: str, busy_timeout_s: float) -> StoreReport:
    _require_writable(path)
    if path.exists():
        _require_unlocked(path, busy_timeout_s)
    state = _state(path, wait=True)
    if state == "half-migrated":
        raise StoreError(
            f"{path} is half-migrated: a process was killed while MLflow created it, and MLflow cannot open it again; "
            "run: mlflow-yolo doctor --fix (it is moved aside, it holds no runs)"
        )
    if state == "other-version":
        raise StoreError(
            f"{path} has the schema of another MLflow version; back it up and run: mlflow db upgrade sqlite:///{path}"
        )
    return StoreReport(redact(uri), True, f"{path} is " + ("created on first use" if state == "missing" else "ready"))


def _require_writable(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a directory, not a SQLite file: use sqlite:///{path / 'mlflow.db'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise StoreError(
            f"{path.parent} cannot be written ({error.strerror or error}): choose another --tracking-uri"
        ) from None
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"{path} cannot be written by this user: change its permissions or the --tracking-uri")


def _state(path: Path, *, wait: bool) -> State:
    """Return what `path` holds. With `wait`, one that MLflow seems to be migrating right now gets time to finish."""
    while True:
        state = _state_now(path)
        being_made = state == "half-migrated" or (state == "missing" and path.exists())
        if not wait or not being_made or time.time() - path.stat().st_mtime > _SETTLED_S:
            return state
        time.sleep(0.2)


def _state_now(path: Path) -> State:
    if not path.exists() or path.stat().st_size == 0:
        return "missing"
    with _reading(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        has_version = "alembic_version" in tables
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall() if has_version else []
        n_experiments = (
            connection.execute("SELECT count(*) FROM experiments").fetchone()[0] if "experiments" in tables else 0
        )
    if not tables:
        return "missing"
    if "experiments" not in tables and not has_version:
        raise StoreError(f"{path} is a SQLite file of some other program: choose another --tracking-uri")
    if [version for (version,) in versions] == [_newest_revision()]:
        return "ready"
    # MLflow adds its Default experiment after the last migration, so a store without one never got that far.
    return "other-version" if n_experiments else "half-migrated"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read ({error}): end the process that holds it, or wait") from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a SQLite store ({error}): choose another --tracking-uri") from None


def _require_unlocked(path: Path, timeout_s: float) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"{path} cannot be written ({error}, waited {timeout_s:g} s): end the process that holds it"
        ) from None
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is not a SQLite store ({error}): choose another --tracking-uri") from None


def _count(path: Path, table: str) -> int:
    with _reading(path) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (table,)).fetchone()
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) if known else 0


def _create_once(path: Path) -> None:
    """Create the store at `path` unless another process does so meanwhile."""
    try:
        with FileLock(path.with_name(f".{path.name}.creating.lock"), timeout=_CREATE_TIMEOUT_S):
            if _state(path, wait=True) == "missing":
                _create(path)
    except Timeout:
        raise StoreError(f"{path} is being created by another process for over a minute: end that process") from None


def _create(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in path.parent.glob(f".{path.name}.new-*"):  # of a creator that was killed; the lock is ours
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.new-{os.getpid()}")
    try:
        with _quiet("mlflow.store.db.utils"):
            store = SqlAlchemyStore(f"sqlite:///{temporary}", str(path.parent / "mlruns"))
        store.engine.dispose()
        if path.exists():  # empty: nobody has put anything there
            path.unlink()
        _move_unless_exists(temporary, path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be created ({error.strerror or error}): choose another --tracking-uri"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}-journal").unlink(missing_ok=True)


def _move_unless_exists(source: Path, target: Path) -> None:
    """Give `source` the name `target`, unless a plain MLflow, which knows no lock of ours, created it meanwhile."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not target.exists():
            source.rename(target)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep INFO lines of one logger ("Creating initial MLflow database tables") off the user's terminal."""
    logger = logging.getLogger(name)

    def above_info(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    logger.addFilter(above_info)
    try:
        yield
    finally:
        logger.removeFilter(above_info)


def _newest_revision() -> str:
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def _is_registered(scheme: str, uri: str) -> bool:
    """Return whether a plugin or MLflow itself serves this scheme (databricks, an installed tracking store)."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    return uri == "databricks" or (scheme not in ("", "file") and scheme in _tracking_store_registry._registry)


def _unusable_scheme(scheme: str, uri: str) -> str:
    if scheme in ("", "file"):
        return (
            f"tracking URI {redact(uri)} is a folder store, which MLflow has retired and refuses: "
            "use sqlite:///mlflow.db, or move its runs with: mlflow migrate-filestore"
        )
    return (
        f"tracking URI {redact(uri)} has the unknown scheme {scheme!r}: "
        "use sqlite:///mlflow.db, http://host:5000 or postgresql://host/database"
    )
