"""A store to look into, and the command line."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_yolo.cli import main
from mlflow_yolo.datasets.digits import generate

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(store: str) -> Iterator[MlflowClient]:
    """A client of the fresh store, for looking at what arrived."""
    opened = MlflowClient(tracking_uri=store)
    yield opened
    opened._tracking_client.store.engine.dispose()


@pytest.fixture
def run(store: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line and returns exit code, output and standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a few scenes of digits."""
    return generate("digits", cache_dir=tmp_path_factory.mktemp("few"), n_train=8, n_val=4, n_test=4)
