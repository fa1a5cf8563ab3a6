"""One replica of a deployment on Ray Serve: our engine and application in a process of the cluster."""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Closed, Options, Status
from mlflow_yolo.deployment.inference.opening import open_backend
from mlflow_yolo.runtime.images import Pixels

MODEL_URI = "model_uri"
"""Key of Serve's user config: changed, it reaches the replicas without their being started anew."""


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica is started with; another value starts another process.

    Attributes:
        tracking_uri: Where models are looked up.
        poll_s: Time between two looks at an alias.
        engine: Options of `Engine`.
        environment: Variables that say how to reach the tracking server.
        token: What requests have to bring; None for nothing.
    """

    tracking_uri: str
    poll_s: float
    engine: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: str | None = field(default=None, repr=False)


class Replica:
    """A backend that Serve gives its model to, and the application before it.

    Serve makes it, asks it for the application, tells it the model, and only then sends requests. It ends one after the
    requests that it has begun.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        os.environ.update(settings.environment)
        self._settings = settings
        self._uri = ""
        self._backend: Backend | None = None

    async def reconfigure(self, config: Mapping[str, str]) -> None:
        """Serve a model: opened and warmed before the first request, later followed to as an alias is."""
        self._uri = config[MODEL_URI]
        if self._backend is None:
            self._backend = await asyncio.to_thread(
                open_backend,
                lambda: self._uri,
                tracking_uri=self._settings.tracking_uri,
                poll_s=self._settings.poll_s,
                **self._settings.engine,
            )

    def submit(self, image: bytes | Pixels, options: Options = Options()) -> "Future[Answer]":  # noqa: B008 (frozen)
        """Take an image and return at once; see `Backend.submit`."""
        return self._opened().submit(image, options)

    def status(self) -> Status:
        """Return how it is now."""
        return self._opened().status()

    def close(self, grace_s: float) -> None:
        """Close what is open; see `Backend.close`."""
        if self._backend is not None:
            self._backend.close(grace_s)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application, for Serve."""
        return build_app(self, token=self._settings.token)

    def _opened(self) -> Backend:
        if self._backend is None:
            raise Closed("no model is open yet. Ask again in a moment.")
        return self._backend
