"""A registry with a model of a few versions, for tests that only move aliases: its versions hold no bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture
def client(store: str) -> "MlflowClient":
    """Return the client of an empty registry."""
    from mlflow_yolo.registry.store import open_registry

    return open_registry(store)


@pytest.fixture
def make_versions(client: "MlflowClient", tmp_path: Path) -> Callable[[str, int], list[str]]:
    """Return what registers a model with so many versions."""
    from mlflow_yolo.registry.history import create_model

    def make(name: str, n: int) -> list[str]:
        create_model(client, name)
        return [str(client.create_model_version(name, source=str(tmp_path)).version) for _ in range(n)]

    return make


@pytest.fixture
def cells(make_versions: Callable[[str, int], list[str]]) -> str:
    """Return the name of a model of five versions."""
    make_versions("cells", 5)
    return "cells"
