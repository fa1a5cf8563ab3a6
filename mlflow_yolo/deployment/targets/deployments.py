"""What is known of this user's deployments: a folder each, so that every command finds them again.

    with held("cells") as folder:
        write(folder, Deployment("cells", "models:/cells@champion-cpu", "sqlite:////home/me/mlflow.db"))
    known("cells").model_uri

The folder holds `deployment.json`, written whole or not at all; `uri`, the model that the server follows; `server.log`.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlflow_yolo.datasets.digits import cache_directory
from mlflow_yolo.exceptions import ArgumentError

URI, LOG = "uri", "server.log"

_FILE = "deployment.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class Deployment:
    """What is known of a deployment.

    Attributes:
        name: Its name.
        model_uri: What it serves: `models:/…`, or a variant's folder.
        tracking_uri: Where a `models:/…` is looked up, without a password.
        backend: `process`, or who else runs it.
        host: Address that the server listens at; empty for another backend.
        port: Its port; 0 for another backend.
        pid: Number of the server's process; 0 where there is none.
        born: When that process began, seconds since 1970: numbers are given out again.
        config: Further settings, by name.
        details: What another backend wants to be remembered.
    """

    name: str
    model_uri: str
    tracking_uri: str
    backend: str = "process"
    host: str = ""
    port: int = 0
    pid: int = 0
    born: float = 0.0
    config: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the server answers on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def names(*, root: Path | None = None) -> list[str]:
    """Return the names of all deployments, sorted."""
    return sorted(file.parent.name for file in _root(root).glob(f"*/{_FILE}"))


def known(name: str, *, root: Path | None = None) -> Deployment:
    """Return what is known of a deployment.

    Raises:
        ArgumentError: There is none of this name.
    """
    found = read(folder_of(name, root=root))
    if found is None:
        others = ", ".join(names(root=root)) or "none"
        raise ArgumentError(f"there is no deployment {name!r}. Known: {others}.")
    return found


def folder_of(name: str, *, root: Path | None = None) -> Path:
    """Return the folder of a deployment, which need not exist.

    Args:
        name: A letter or digit, then letters, digits, `_`, `-` and `.`; 63 at most.
        root: Folder of the deployments; None for the user's own (`cache_directory`).

    Raises:
        ArgumentError: The name cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"name={name!r} cannot be used. Use up to 63 letters, digits, _, - and ., the first a letter or digit."
        )
    return _root(root) / name


@contextmanager
def held(name: str, *, root: Path | None = None) -> Iterator[Path]:
    """Hold a deployment against other commands; yield its folder, which need not exist.

    Raises:
        ArgumentError: Another command holds it, the name cannot be used, or nothing can be written there.
    """
    folder = folder_of(name, root=root)
    lock = FileLock(str(folder.with_name(f".{name}.lock")))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ArgumentError(f"deployment {name!r} is being changed by another command. Wait for it to end.") from None
    except OSError as error:
        raise ArgumentError(
            f"{folder.parent} cannot be written: {error.strerror or error}. Set MLFLOW_YOLO_CACHE to another folder."
        ) from error
    try:
        yield folder
    finally:
        lock.release()


def read(folder: Path) -> Deployment | None:
    """Return what a deployment's folder says, None where it says nothing.

    Raises:
        ArgumentError: It cannot be read.
    """
    try:
        return Deployment(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ArgumentError(f"{folder / _FILE} cannot be read ({error}). Remove the folder.") from error


def write(folder: Path, deployment: Deployment) -> None:
    """Write what is known into a deployment's folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _FILE, json.dumps(asdict(deployment), indent=1) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all; only its owner may read it."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.touch(mode=0o600)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _root(root: Path | None) -> Path:
    return root if root is not None else cache_directory() / "deployments"
