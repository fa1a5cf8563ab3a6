"""A throw-away PostgreSQL cluster for benchmarks: in a temporary folder, on a free port of this machine only."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root


def missing_part() -> str:
    """Return what is missing to run PostgreSQL here and how to get it, empty when nothing is."""
    if _find("initdb") is None or _find("pg_ctl") is None:
        return "PostgreSQL is not installed: apt-get install -y postgresql"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed: make bench-install"
    return "" if os.geteuid() or _other_user() else "PostgreSQL does not run as root, and there is no other user"


@contextmanager
def cluster() -> Iterator[str]:
    """Start PostgreSQL with its usual safety (fsync on) and yield the URI of an empty database; remove all at the end.

    Raises:
        OSError: PostgreSQL is missing or does not start; ask `missing_part` first.
    """
    folder = Path(tempfile.mkdtemp(prefix="benchmark-postgres-"))
    try:
        if user := _other_user():
            os.chown(folder, user.pw_uid, user.pw_gid)
        port = _free_port()
        _run(["initdb", "-D", f"{folder}/data", "-U", "mlflow", "-A", "trust", "-E", "UTF8"], folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        _run(["pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start"], folder)
        try:
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            _run(["pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str], folder: Path) -> None:
    program = _find(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]}: apt-get install -y postgresql")
    user = _other_user()
    done = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # not a pipe: the server inherits it and would keep it open
        stderr=subprocess.DEVNULL,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        log = folder / "log"
        raise OSError(f"{command[0]} failed: {log.read_text() if log.exists() else 'see its own message'}")


def _find(program: str) -> str | None:
    """Return the path of a PostgreSQL program; Debian keeps them out of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    return shutil.which(program) or (str(versions[0]) if versions else None)


def _other_user() -> pwd.struct_passwd | None:
    """Return the user to run as where this process is root, None where it need not change."""
    if os.geteuid():
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
