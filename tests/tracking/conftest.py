"""Tools to look into a test's store and to break the way to it."""

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.tracking.run import TrackedRun, open_run
from tests.tracking import stories


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    """A client of the fresh store, for looking at what arrived."""
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def open_tracked(store: str, tmp_path: Path) -> Iterator[Callable[..., TrackedRun]]:
    """Opens runs in `tmp_path/run` and closes those that the test has left open."""
    opened: list[TrackedRun] = []

    def open_one(folder: str = "run", **given: Any) -> TrackedRun:
        given.setdefault("tracking_uri", store)
        opened.append(open_run(tmp_path / folder, **given))
        return opened[-1]

    yield open_one
    for run in opened:
        run.close(timeout_s=2.0)


@dataclass
class BrokenClient:
    """A real client of which some calls raise: `breaks` is asked with the call's name and arguments."""

    real: MlflowClient
    breaks: Callable[[str, tuple[Any, ...], dict[str, Any]], Exception | None]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.real, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            error = self.breaks(name, args, kwargs)
            if error is not None:
                raise error
            return attribute(*args, **kwargs)

        return call


@pytest.fixture
def broken() -> type[BrokenClient]:
    """The class of clients that break on purpose."""
    return BrokenClient


@pytest.fixture(scope="session")
def own_runs(
    tmp_path_factory: pytest.TempPathFactory,
    store_template: Path,
    small_model: Path,
    small_arguments: Mapping[str, Any],
) -> Iterator[stories.Story]:
    """What `autolog()` made of a training, a validation, an export and a second training of one model."""
    folder = tmp_path_factory.mktemp("own-runs")
    yield from stories.story(stories.tell_own_runs, folder, store_template, small_model, small_arguments)


@pytest.fixture(scope="session")
def active_runs(
    tmp_path_factory: pytest.TempPathFactory,
    store_template: Path,
    small_model: Path,
    small_arguments: Mapping[str, Any],
) -> Iterator[stories.Story]:
    """What `autolog()` made of trainings inside runs that the user had opened."""
    folder = tmp_path_factory.mktemp("active-runs")
    yield from stories.story(stories.tell_active_runs, folder, store_template, small_model, small_arguments)


@pytest.fixture
def dead_uri() -> str:
    """A tracking server's address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"
