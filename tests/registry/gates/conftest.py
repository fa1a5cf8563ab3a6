"""A version, made once a test."""

from pathlib import Path

import pytest

from mlflow_yolo.registry.fetching import Fetched
from tests.registry.gates.made import a_version


@pytest.fixture
def version(tmp_path: Path) -> Fetched:
    """Return an int8 version of two classes of which nothing was measured."""
    return a_version(tmp_path / "7")
