"""A thread that asks the registry what an alias names, and lets an engine serve it.

    engine = Engine(fetch("models:/cells@champion-cpu"))
    follower = Follower("models:/cells@champion-cpu", engine=engine, poll_s=5)
    ...
    follower.close()
    engine.close(grace_s=10)

The new model is fetched, opened and warmed here, beside the old one, which serves until then. Whatever goes wrong, the
old one goes on serving and `engine.status().error` says why.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlflow_yolo.deployment.inference.backend import Closed, Loaded
from mlflow_yolo.exceptions import ArgumentError, CheckpointError, MlflowYoloError, StoreError
from mlflow_yolo.registry.address import ModelAddress, is_model_uri, parse_model_uri
from mlflow_yolo.registry.fetching import SHA_TAG, Fetched, fetch, resolve
from mlflow_yolo.registry.store import RegistryDown, open_registry
from mlflow_yolo.tracking.stores.client import one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mlflow_yolo.deployment.inference.engine import Engine

_LOG = logging.getLogger(__name__)
_LONGEST_RETRY_S = 3600.0
_JOIN_S = 5.0
_MOST_CHARACTERS = 500


class Registry(Protocol):
    """What a follower asks."""

    def find(self, address: ModelAddress) -> tuple[str, str]:
        """Return the version that an address names now and its digest, empty where the registry holds none."""

    def fetch(self, address: ModelAddress) -> Fetched:
        """Return a version as files, its bytes checked."""


class MlflowRegistry:
    """MLflow's registry, connected when it is first asked and again after it did not answer."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        """Remember the store; None for `MLFLOW_TRACKING_URI`."""
        self._tracking_uri = tracking_uri
        self._client: MlflowClient | None = None

    def find(self, address: ModelAddress) -> tuple[str, str]:
        """Return the version that an address names now, and its digest."""
        try:
            version = resolve(self._connected(), address)
        except StoreError:
            self._client = None
            raise
        return str(version.version), str(version.tags.get(SHA_TAG, ""))

    def fetch(self, address: ModelAddress) -> Fetched:
        """Return a version as files, its bytes checked."""
        return fetch(str(address), client=self._connected(), tracking_uri=self._tracking_uri)

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            self._client = open_registry(self._tracking_uri)
        return self._client


class Follower:
    """Keeps an engine at what a URI names.

    Attributes:
        follows: Whether there is anything to follow: an explicit version and a folder stay what they are.
    """

    def __init__(
        self,
        uri: str | Callable[[], str],
        *,
        engine: "Engine",
        tracking_uri: str | None = None,
        poll_s: float = 5.0,
        retry_s: float = 60.0,
        registry: Registry | None = None,
    ) -> None:
        """Start the thread, where there is anything to follow.

        Args:
            uri: What the engine serves: `models:/<name>@<alias>`, a version's URI or a folder. A function is asked at
                every look, so that another process can send the engine elsewhere.
            engine: Opens models and serves them.
            tracking_uri: The store; None for `MLFLOW_TRACKING_URI`.
            poll_s: Time between two looks.
            retry_s: Time after which a version that could not be served is tried again; it doubles with each attempt,
                up to an hour. Another version is tried at once.
            registry: Asked instead of MLflow's at `tracking_uri`.

        Raises:
            ArgumentError: `poll_s` is no time, or `uri` is none that can be followed.
        """
        if not 0 < poll_s < math.inf:
            raise ArgumentError(f"poll_s={poll_s} is no time between two looks. Use seconds, for example 5.")
        self._ask = uri if callable(uri) else lambda: uri
        self._engine, self._poll_s, self._retry_s = engine, poll_s, retry_s
        self._registry = registry if registry is not None else MlflowRegistry(tracking_uri)
        self._served_uri = self._ask().strip()
        self.follows = callable(uri) or _may_move(self._served_uri)
        self._failure: _Failure | None = None
        self._error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        if self.follows:
            self._thread.start()

    def look(self) -> None:
        """Look once: serve what the URI names now, or let the engine's status say why not."""
        try:
            error = self._look()
        except Closed:
            self._stop.set()
            return
        except Exception as problem:
            error = f"{_label(self._serving)} is served; what is newer cannot be known: {_line(problem)}"
        if error != self._error and not self._stop.is_set():
            _LOG.log(logging.WARNING if error else logging.INFO, error or "following again")
        self._error = error
        self._engine.report(error)

    def close(self) -> None:
        """Look no more; a download that is going on is left to end by itself."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    @property
    def _serving(self) -> Loaded:
        return self._engine.status().serving

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.look()

    def _look(self) -> str:
        """Return why what is wanted is not served, empty where it is."""
        uri = self._ask().strip()
        wanted = self._find(uri) if is_model_uri(uri) else self._find_folder(uri)
        if wanted is not None:
            if (failure := self._failure) is not None and failure.is_still(wanted.key):
                return failure.error
            try:
                self._swap(wanted.source())
            except (Closed, RegistryDown):  # no fault of the version's: it is tried at the next look
                raise
            except Exception as error:
                self._failure = self._put_off(wanted, error)
                return self._failure.error
            _LOG.info("%s is served", _label(self._serving))
        self._served_uri, self._failure = uri, None
        return ""

    def _find(self, uri: str) -> "_Wanted | None":
        """Return the version to change to, None where it is served."""
        address = parse_model_uri(uri)
        if self._is_served(address, address.version):
            return None
        version, sha256 = self._registry.find(address)
        if self._is_served(address, version, sha256):
            return None
        fixed = ModelAddress(address.name, version=version)
        return _Wanted(
            key=f"{uri} {version} {sha256}",
            label=f"{address.name} version {version}",
            source=lambda: replace(self._registry.fetch(fixed), alias=address.alias),
        )

    def _find_folder(self, uri: str) -> "_Wanted | None":
        return None if uri == self._served_uri else _Wanted(uri, uri, lambda: Path(uri))

    def _is_served(self, address: ModelAddress, version: str | None, sha256: str = "") -> bool:
        now = self._serving
        wanted = (address.name, version, address.alias, sha256 or now.sha256)
        return version is not None and wanted == (now.name, now.version, now.alias, now.sha256)

    def _swap(self, source: Fetched | Path) -> None:
        served, now = self._engine.open(source), self._serving
        if served.loaded.task != now.task:
            served.retire()
            raise CheckpointError(
                f"its task is {served.loaded.task}, but clients ask for {now.task}. Serve it under another name."
            )
        if self._stop.is_set():
            served.retire()
            raise Closed("the follower was closed.")
        self._engine.swap(served)

    def _put_off(self, wanted: "_Wanted", error: Exception) -> "_Failure":
        before = self._failure
        again = before is not None and before.key == wanted.key
        wait_s = min(2 * before.wait_s, _LONGEST_RETRY_S) if before is not None and again else self._retry_s
        text = f"{wanted.label} is not served, {_label(self._serving)} goes on: {_line(error)}"
        return _Failure(wanted.key, text, wait_s, time.monotonic() + wait_s)


@dataclass(frozen=True)
class _Wanted:
    """What is to be served instead."""

    key: str
    label: str
    source: Callable[[], Fetched | Path]


@dataclass(frozen=True)
class _Failure:
    """Why something cannot be served, and when it is tried again."""

    key: str
    error: str
    wait_s: float
    until: float

    def is_still(self, key: str) -> bool:
        """Return whether `key` is what failed, and its time has not come."""
        return key == self.key and time.monotonic() < self.until


def _may_move(uri: str) -> bool:
    """Return whether a URI may name something else tomorrow.

    Raises:
        ArgumentError: It names nothing in the registry, though it says so.
    """
    return is_model_uri(uri) and parse_model_uri(uri).alias is not None


def _label(loaded: Loaded) -> str:
    return f"{loaded.name} version {loaded.version}" if loaded.version is not None else loaded.name


def _line(error: Exception) -> str:
    """Return an error in one line; our own errors hold no passwords, and may name two digests."""
    if isinstance(error, MlflowYoloError):
        return " ".join(str(error).split())[:_MOST_CHARACTERS]
    return f"{type(error).__name__}: {one_line(error)}"
