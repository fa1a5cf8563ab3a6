"""What `serve` and a replica of a cluster open: an engine that follows an address."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mlflow_yolo.deployment.inference.backend import Answer, Backend, Options, Status
from mlflow_yolo.deployment.inference.engine import Engine
from mlflow_yolo.deployment.inference.follower import Follower
from mlflow_yolo.registry.address import is_model_uri
from mlflow_yolo.runtime.images import Pixels


class FollowingEngine:
    """An engine and the thread that keeps it at what an address names; a backend."""

    def __init__(self, engine: Engine, follower: Follower) -> None:
        self._engine = engine
        self._follower = follower

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 (frozen)
        """Take an image and return at once; see `Backend.submit`."""
        return self._engine.submit(image, options)

    def status(self) -> Status:
        """Return how it is now."""
        return self._engine.status()

    def close(self, grace_s: float) -> None:
        """Follow no more, then close the engine; see `Backend.close`."""
        self._follower.close()
        self._engine.close(grace_s)


def open_backend(
    uri: str | Callable[[], str], *, tracking_uri: str | None = None, poll_s: float = 5.0, **engine: Any
) -> Backend:
    """Return a backend that serves what `uri` names, warmed, and follows it.

    Args:
        uri: `models:/<name>@<alias>`, which is followed; `models:/<name>/<version>`, or a variant's folder or file. A
            function is asked again at every look.
        tracking_uri: The store; None for `MLFLOW_TRACKING_URI`.
        poll_s: Time between two looks at an alias, seconds.
        engine: Options of `Engine`.

    Raises:
        ArgumentError: There is no such version, or a value is out of its range.
        CheckpointError: The model may not or cannot be served.
        StoreError: The registry does not answer, or lets nobody read.
    """
    first = uri() if callable(uri) else uri
    opened = Engine(_source(first, tracking_uri), **engine)
    try:
        return FollowingEngine(opened, Follower(uri, engine=opened, tracking_uri=tracking_uri, poll_s=poll_s))
    except BaseException:
        opened.close(0)
        raise


def _source(uri: str, tracking_uri: str | None) -> Any:
    if not is_model_uri(uri):
        return Path(uri)
    from mlflow_yolo.registry.fetching import fetch

    return fetch(uri, tracking_uri=tracking_uri)
