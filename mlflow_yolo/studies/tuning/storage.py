"""Where a study's trials are kept: a journal file in the study's folder, or a PostgreSQL database.

Only the driver opens it, so a file does at any number of machines; a database is for studies that are looked at or
continued from elsewhere. SQLite gives an enqueued trial to two askers at times (`SELECT … FOR UPDATE` is not
supported), MLflow itself is no study storage (1.3 s a trial at 20 trials, growing with their square): facts of both
were measured before this was written.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.exceptions import ArgumentError, StoreError, WorkError
from mlflow_yolo.tracking.stores.addresses import redact
from mlflow_yolo.tracking.stores.client import one_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import Connection, Engine

VARIABLE = "MLFLOW_YOLO_STORAGE"
JOURNAL = "optuna.journal"
_DRIVERS = {"postgres": "postgresql+psycopg2", "postgresql": "postgresql+psycopg2"}
_KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
_ON_THE_WAY = (5, 7, 8, 9)  # Optuna's JournalOperation: a trial's parameter, report, user and system attribute
# A server that ends idle sessions (PostgreSQL 14 and later) would end the lock with its connection.
_NEVER_IDLE = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
_IS_ANOTHERS = "SELECT to_regclass('alembic_version') IS NOT NULL AND to_regclass('studies') IS NULL"
_CONNECT_ARGS = {"connect_timeout": 10, "application_name": "mlflow_yolo", "options": _KEEPALIVE}


def resolve_storage(text: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL of the study storage as given, else of `MLFLOW_YOLO_STORAGE`; None for the study's own file.

    It may hold a password: show it through `addresses.redact`, keep it through `addresses.without_password`.

    Raises:
        ArgumentError: Something else than a PostgreSQL URL.
    """
    url = text or environment.get(VARIABLE) or ""
    scheme = url.partition("://")[0].partition("+")[0] if "://" in url else ""
    if url in ("", "auto"):
        return None
    if scheme == "sqlite":
        raise ArgumentError(
            f"storage={redact(url)} is SQLite, which can give one trial to two workers. "
            f"Leave storage out for a journal file in the study's folder, or give a postgresql:// URL."
        )
    if scheme not in _DRIVERS:
        raise ArgumentError(
            f"storage={redact(url)} is no PostgreSQL URL. Use postgresql://user:password@host/database "
            f"(in {VARIABLE}, so that it is not logged), or leave it out for a file in the study's folder."
        )
    return url


def reach_storage(text: str | None) -> None:
    """Find out, before anything is written, whether a database that is named can be reached.

    Raises:
        ArgumentError: No storage of this kind.
        StoreError: It cannot be reached.
    """
    import sqlalchemy

    if (url := resolve_storage(text)) is None:
        return
    engine = _engine(url)
    try:
        engine.connect().close()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise StoreError(f"storage={redact(url)} cannot be used: {_without(url, error)}") from None
    finally:
        engine.dispose()


@contextlib.contextmanager
def open_storage(text: str | None, directory: Path, name: str) -> Iterator["BaseStorage"]:
    """Yield the storage of a study, held by this process until the context ends.

    Args:
        text: A PostgreSQL URL, or None for `MLFLOW_YOLO_STORAGE` or else the journal file.
        directory: The study's folder; it exists, and its lock is held by this process.
        name: The study's name, which one driver at a time may run in a database.

    Raises:
        ArgumentError: No storage of this kind, or another process runs the study.
        StoreError: The database cannot be reached or used, or the journal file is damaged.
        WorkError: The storage failed while the study ran; the same command continues it.
    """
    url = resolve_storage(text)
    if url is None:
        yield _open_journal(directory / JOURNAL)
        return
    with _open_database(url, name) as storage:
        yield storage


def _open_journal(file: Path) -> "BaseStorage":
    """Return the storage of a journal file, which is mended first.

    Optuna's own backend waits for the disk after each of a trial's dozen records. Here the disk is waited for where a
    trial begins or ends: only a power cut can take more than that, and a report that it takes is made again.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(file))

    class Backend(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            lock.acquire()
            try:
                _append(file, lines.encode(), durable=any(log["op_code"] not in _ON_THE_WAY for log in logs))
            finally:
                lock.release()

    Path(f"{file}.lock").unlink(missing_ok=True)  # of a killed driver: Optuna would wait 30 s for it
    mend(file)
    return JournalStorage(Backend(str(file), lock))


def _append(file: Path, lines: bytes, *, durable: bool) -> None:
    """Add lines to a file, or nothing: half a line would spoil every line after it.

    Raises:
        WorkError: The disk is full or refuses.
    """
    with file.open("ab", buffering=0) as journal:
        size = os.fstat(journal.fileno()).st_size
        try:
            if journal.write(lines) != len(lines):
                journal.write(lines[os.fstat(journal.fileno()).st_size - size :])  # says why
            if durable:
                os.fsync(journal.fileno())
        except OSError as error:
            os.ftruncate(journal.fileno(), size)
            raise WorkError(
                f"{file} cannot be written: {error.strerror or error}. "
                f"Make room and start the same command, which continues the study."
            ) from error


def mend(file: Path) -> None:
    """Cut off the last line of a journal file where a kill or a power cut left only a part of it.

    Raises:
        StoreError: Another line than the last cannot be read; no kill does that.
    """
    if not file.exists():
        return
    good, n_lines = 0, 0
    with file.open("rb") as lines:
        for line in lines:
            if not _is_whole(line):
                break
            good, n_lines = good + len(line), n_lines + 1
        if any(_is_whole(line) for line in lines):
            raise StoreError(
                f"{file} is damaged in line {n_lines + 1}. Restore it from a copy, or start under another --study."
            )
    if good < file.stat().st_size:
        os.truncate(file, good)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


@contextlib.contextmanager
def _open_database(url: str, name: str) -> Iterator["BaseStorage"]:
    """Yield the storage of a database in which this process alone runs the study `name`."""
    import sqlalchemy
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage

    engine = _engine(url)
    lock = _StudyLock(engine, name)
    address = engine.url.render_as_string(hide_password=False)
    try:
        try:
            lock.take()
            if lock.ask(_IS_ANOTHERS):
                raise StoreError(
                    f"storage={redact(url)} holds tables of another program, such as MLflow, and Optuna would take its "
                    f"place in their alembic_version. Give a database of its own: CREATE DATABASE studies."
                )
            storage = RDBStorage(address, engine_kwargs={"connect_args": _CONNECT_ARGS, "pool_pre_ping": True})
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:  # RuntimeError: tables of another Optuna
            raise StoreError(f"storage={redact(url)} cannot be used: {_without(url, error)}") from None
        # A connection is opened anew when the server broke the old ones, and then the lock was lost with them.
        sqlalchemy.event.listen(storage.engine, "connect", lambda *_: lock.take())
        try:
            yield storage
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise WorkError(
                f"storage={redact(url)} failed: {_without(url, cause)}. "
                f"Start the same command when it is back: it continues the study."
            ) from error
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        lock.release()
        engine.dispose()


def _engine(url: str) -> "Engine":
    """Return the engine of the lock's connection.

    Raises:
        ArgumentError: The URL cannot be read.
        StoreError: Its driver is not installed.
    """
    import sqlalchemy

    try:
        address = sqlalchemy.make_url(url)
        address = address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))
        return sqlalchemy.create_engine(address, connect_args=_CONNECT_ARGS, isolation_level="AUTOCOMMIT")
    except ImportError:
        raise StoreError(
            f"storage={redact(url)} needs a driver that is not installed: pip install 'mlflow-yolo[postgresql]'"
        ) from None
    except (sqlalchemy.exc.ArgumentError, ValueError):  # their texts can hold a piece of the password
        raise ArgumentError(
            f"storage={redact(url)} cannot be read. Write postgresql://user:password@host:port/database, "
            f"special characters of the password as %40 and so on."
        ) from None


class _StudyLock:
    """The right to run a study: an advisory lock that PostgreSQL frees when its connection ends, however it ends."""

    def __init__(self, engine: "Engine", name: str) -> None:
        self._engine, self._name = engine, name
        self._key = int.from_bytes(hashlib.sha256(f"mlflow_yolo/{name}".encode()).digest()[:8], signed=True)
        self._connection: Connection | None = None

    def take(self, *, timeout_s: float = 2.0) -> None:
        """Hold the lock, taking it where it is not held or its connection is broken.

        Raises:
            ArgumentError: Another process holds it.
        """
        if self._is_alive():
            return
        self._connection = self._engine.connect()
        self.ask(_NEVER_IDLE)
        deadline = time.monotonic() + timeout_s
        while not self.ask(f"SELECT pg_try_advisory_lock({self._key})"):
            if time.monotonic() > deadline:
                self.release()
                raise ArgumentError(
                    f"study {self._name} is being run by another process on the same storage. "
                    f"Wait for it, or name another with --study."
                )
            time.sleep(0.2)

    def ask(self, query: str) -> Any:
        """Return the one value that a query gives, asked on the lock's connection."""
        assert self._connection is not None
        return self._connection.exec_driver_sql(query).scalar()

    def release(self) -> None:
        """Let go of the lock by ending its connection."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _is_alive(self) -> bool:
        import sqlalchemy

        if self._connection is None:
            return False
        try:
            self.ask("SELECT 1")
        except sqlalchemy.exc.SQLAlchemyError:
            self.release()
            return False
        return True


def _without(url: str, error: Exception) -> str:
    """Return an error's text in one line, in which the password of `url` does not occur."""
    import sqlalchemy

    password = sqlalchemy.make_url(url).password
    cause: Exception = (
        getattr(error, "orig", None) or error
    )  # the driver's own words, without SQLAlchemy's link to its pages
    text = one_line(cause)
    return text.replace(password, "***") if password else text
