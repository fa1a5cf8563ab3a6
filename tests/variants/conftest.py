"""A store to look into, and the command line."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_yolo.cli import main
from mlflow_yolo.datasets.digits import generate

Run = Callable[..., tuple[int, str, str]]

QUICK = ["--runs", "2", "--rounds", "1", "--device", "cpu", "--batch", "8"]
QUICK += ["--workers", "0", "--plots", "false", "--nbs", "8"]
"""As little training and measuring as a workflow can be run with."""


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


@dataclass(frozen=True)
class Exported:
    """What `export` made of the shipped detector; no test may change it."""

    folder: Path
    text: str
    uri: str


@pytest.fixture(scope="session")
def exported(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return the float32 and float16 ONNX of the shipped detector."""
    root = tmp_path_factory.mktemp("exported")
    uri, shown = f"sqlite:///{root / 'mlflow.db'}", io.StringIO()
    words = [
        "export",
        "--data",
        str(few),
        "--format",
        "fp16-onnx",
        "--output",
        str(root / "made"),
        "--tracking-uri",
        uri,
    ]
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main(words)
    return Exported(root / "made", shown.getvalue(), uri)
