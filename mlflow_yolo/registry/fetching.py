"""A registered version as files on this machine, the bytes checked every time.

What was downloaded once is kept in a folder that belongs to one version of one registry: it is made under another name
and moved into place when it is whole and right, so that an interruption leaves nothing that could be taken for a
model, and two processes may fetch the same version at once.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlflow_yolo.datasets.digits import cache_directory
from mlflow_yolo.exceptions import ArgumentError, CheckpointError, StoreError
from mlflow_yolo.registry.address import ModelAddress, parse_model_uri
from mlflow_yolo.registry.artifact import BENCHMARK_FOLDER, VARIANT_FOLDER, check_artifact
from mlflow_yolo.registry.store import RegistryDown, open_registry, plain_errors
from mlflow_yolo.tracking.stores.addresses import absolute, redact, without_password
from mlflow_yolo.tracking.stores.target import resolve_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

SHA_TAG = "model.sha256"
"""The version's tag that holds the digest of its file."""

_MODEL, _ABOUT = "model", "version.json"
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class Fetched:
    """A registered version as files on this machine.

    Attributes:
        name: The registered model.
        version: The version's number.
        alias: The alias that it was asked for by, None where it was asked for by number.
        sha256: Digest of the file, read again just now.
        folder: The variant's folder.
        tags: The version's tags; those of the download where the registry does not answer.
        run_id: The run that it was logged from, None for none.
    """

    name: str
    version: str
    alias: str | None
    sha256: str
    folder: Path
    tags: Mapping[str, str]
    run_id: str | None

    @property
    def benchmark(self) -> Path:
        """The folder with what was measured; it need not exist."""
        return self.folder.parent / BENCHMARK_FOLDER

    @property
    def uri(self) -> str:
        """The address of exactly this version."""
        return f"models:/{self.name}/{self.version}"


def resolve(client: "MlflowClient", address: ModelAddress) -> "ModelVersion":
    """Return the version that an address names now.

    Raises:
        ArgumentError: There is no such model, version or alias, or MLflow has not finished making the version.
        StoreError: The registry does not answer or does not let this user read.
    """
    with plain_errors(f"find {address}", needs="READ"):
        if address.alias is not None:
            version = client.get_model_version_by_alias(address.name, address.alias)
        else:
            version = client.get_model_version(address.name, str(address.version))
    if version.status not in (None, "READY"):
        raise ArgumentError(f"{address} is not ready: MLflow says {version.status}. Wait, or register it again.")
    return version


def fetch(
    uri: str,
    *,
    tracking_uri: str | None = None,
    client: "MlflowClient | None" = None,
    cache: Path | None = None,
) -> Fetched:
    """Return a registered version as files, downloaded once a machine and checked against all of its digests each time.

    While the registry does not answer, a version that is asked for by number and lies here already is returned; an
    alias is not, because nobody can say what it names now.

    Args:
        uri: `models:/<name>/<version>` or `models:/<name>@<alias>`.
        tracking_uri: The store; None for `MLFLOW_TRACKING_URI`, else `./mlflow.db`.
        client: A client of it, instead of opening one.
        cache: Where downloads are kept; None for `cache_directory()`.

    Raises:
        ArgumentError: There is no such version, or the URI names none.
        CheckpointError: A digest differs (both are named), or it is no model of this package.
        StoreError: The registry does not answer or refuses, or the cache cannot be written.
    """
    address = parse_model_uri(uri)
    store = client.tracking_uri if client is not None else resolve_uri(tracking_uri)
    shelf = _shelf(cache if cache is not None else cache_directory(), store, address.name)
    try:
        client = client if client is not None else open_registry(tracking_uri)
        version = resolve(client, address)
    except RegistryDown as down:
        return _open(_kept(shelf, address, down), address)
    entry = shelf / f"{version.version}-{_identity(version)}"
    if not entry.is_dir():
        _download(client, version, entry)
    return _open(entry, address, version)


def _open(entry: Path, address: ModelAddress, version: "ModelVersion | None" = None) -> Fetched:
    """Return what a folder of the cache holds, its bytes read again; `version` has newer tags than the download."""
    about = _read_about(entry) if version is None else _about(version)
    remedy = f"Remove {entry}; it is downloaded again then."
    sha256 = check_artifact(entry / _MODEL, sha256=about["tags"].get(SHA_TAG, ""), remedy=remedy).sha256
    folder = entry / _MODEL / VARIANT_FOLDER
    return Fetched(address.name, about["version"], address.alias, sha256, folder, about["tags"], about["run_id"])


def _about(version: "ModelVersion") -> dict[str, Any]:
    return {"version": str(version.version), "tags": dict(version.tags), "run_id": version.run_id or None}


def _read_about(entry: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((entry / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{entry / _ABOUT} cannot be read: {error}. Remove {entry}.") from error
    return about


def _kept(shelf: Path, address: ModelAddress, down: RegistryDown) -> Path:
    """Return the folder of a version that was downloaded before."""
    if address.version is None:
        raise RegistryDown(f"{down} What {address} names cannot be known without it.") from down
    entries = sorted(shelf.glob(f"{address.version}-*"), key=lambda entry: entry.stat().st_mtime)
    if not entries:
        raise RegistryDown(f"{down} {address} was not downloaded to this machine before.") from down
    return entries[-1]


def _shelf(cache: Path, store: str, name: str) -> Path:
    """Return the folder of one model of one registry; names may hold what file systems do not take."""
    registry = hashlib.sha256(without_password(absolute(store)).encode()).hexdigest()[:16]
    return cache / "models" / registry / quote(name, safe=" ").replace(".", "%2E")


def _identity(version: "ModelVersion") -> str:
    """Return what tells a version from one of the same number in a registry that was made anew."""
    text = f"{version.creation_timestamp} {version.source} {version.run_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _download(client: "MlflowClient", version: "ModelVersion", entry: Path) -> None:
    """Make the folder of one version, whole or not at all."""
    what = f"models:/{version.name}/{version.version}"
    with _in_place_when_whole(entry) as unfinished:
        model = unfinished / _MODEL
        with plain_errors(f"download {what}", needs="READ"):
            location = client.get_model_version_download_uri(version.name, version.version)
            _copy(location, model, client)
        if not model.is_dir():
            raise CheckpointError(f"the files of {what} are gone from {redact(location)}. Register it again.")
        check_artifact(model, sha256=version.tags.get(SHA_TAG, ""))
        (unfinished / _ABOUT).write_text(json.dumps(_about(version), indent=1) + "\n", encoding="utf-8")


def _copy(location: str, model: Path, client: "MlflowClient") -> None:
    """Download all files, one after the other and without MLflow's progress bars; nothing there leaves nothing here."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    folders: list[str | None] = [None]
    while folders:
        for one in repository.list_artifacts(folders.pop()):
            if one.is_dir:
                folders.append(one.path)
                continue
            file = Path(os.path.normpath(model / one.path))
            if not file.is_relative_to(model):
                raise CheckpointError(
                    f"{redact(location)} lists {one.path!r}, which leads out of it. It is not loaded."
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            repository._download_file(one.path, str(file))


@contextmanager
def _in_place_when_whole(entry: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `entry` at the end, unless another process has made it meanwhile.

    Raises:
        StoreError: The cache cannot be written.
    """
    unfinished = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:8]}")
    try:
        with _cache_errors(entry.parent):
            unfinished.mkdir(parents=True)
            _remove_abandoned(entry.parent)
            yield unfinished
            try:
                unfinished.rename(entry)
            except OSError:
                if not entry.is_dir():
                    raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _cache_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        if "Errno 28" not in str(error):  # no space left, wrapped by MLflow's threads
            raise
        raise _unwritable(cache, os.strerror(errno.ENOSPC)) from error
    except OSError as error:
        raise _unwritable(cache, error.strerror or " ".join(str(error).split())[:200]) from error


def _unwritable(cache: Path, reason: str) -> StoreError:
    return StoreError(
        f"{cache} cannot be written ({reason}). Set MLFLOW_YOLO_CACHE to a folder with space that you may write to."
    )


def _remove_abandoned(shelf: Path) -> None:
    """Remove what killed processes have left, a day later: a download may still be going on."""
    for folder in shelf.glob(".*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder)
