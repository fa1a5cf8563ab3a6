"""Isolation of process-wide state, and the stores that tests write to.

MLflow and Ultralytics keep state in the environment, in module globals and in the user's home. Every piece that could
leak from one test into the next, or from the developer's shell into a test, is reset here with its reason.
"""

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Set what the libraries read once, when they are first imported, before any test module is collected."""
    scratch = Path(tempfile.mkdtemp(prefix="mlflow-yolo-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(scratch, ignore_errors=True))
    # Ultralytics creates and rewrites settings.json here; the developer's own file must stay as it is.
    os.environ["YOLO_CONFIG_DIR"] = str(scratch / "ultralytics")
    (scratch / "ultralytics").mkdir()
    os.environ["YOLO_OFFLINE"] = "1"  # no look-ups for versions, fonts, assets
    os.environ["YOLO_AUTOINSTALL"] = "false"  # a missing package must fail the test, not be installed by it
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it at import; one thread makes small tests faster and repeatable
    os.environ["MPLBACKEND"] = "Agg"  # no display
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported; it would start a sender thread
    # The generated data sets are the same for every test of a session; a developer may keep them between sessions.
    os.environ.setdefault("MLFLOW_YOLO_CACHE", str(scratch / "cache"))


@pytest.fixture(autouse=True)
def isolated_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test its own tracking URI and working directory, and take back what it left behind."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        if name not in ("MLFLOW_YOLO_CACHE", "MLFLOW_DISABLE_TELEMETRY"):
            monkeypatch.delenv(name)  # a run id, experiment, token or server of the developer's shell
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    # MLflow and Ultralytics resolve `./mlruns` and `runs/` against the working directory.
    monkeypatch.chdir(tmp_path)
    yield
    _reset_mlflow()
    _reset_torch()


def _reset_mlflow() -> None:
    if "mlflow.tracking.fluent" not in sys.modules:
        return
    import mlflow.tracking._model_registry.utils as registry_utils
    import mlflow.tracking._tracking_service.utils as tracking_utils
    from mlflow.tracking import fluent

    fluent._active_run_stack.get().clear()  # not end_run(): it would talk to a store that may be gone
    fluent._active_experiment_id = None  # set_experiment() holds for the whole process
    fluent._last_active_run_id.set(None)
    tracking_utils._tracking_uri = None  # set_tracking_uri() wins over the environment
    registry_utils._registry_uri = None
    # MLflow exports these itself, so monkeypatch does not know that it has to take them back.
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


def _reset_torch() -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    # Ultralytics' init_seeds and select_device set both for the process and never take them back.
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated, empty SQLite store, made once a session: MLflow's migrations take two seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("store-template")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "mlruns"))
    return folder / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, store_template: Path) -> str:
    """Return the URI of this test's own empty, migrated store; MLFLOW_TRACKING_URI names the same file."""
    database = tmp_path / "mlflow.db"
    shutil.copyfile(store_template, database)
    # The default experiment's artifacts would otherwise go to the template's folder.
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(tmp_path / "mlruns" / "0"),))
    connection.close()
    return f"sqlite:///{database}"


@pytest.fixture
def missing() -> Callable[[str, str], NoReturn]:
    """Return a function (what, remedy) for an optional part that is absent: skips, but fails where CI=true."""

    def report(what: str, remedy: str) -> NoReturn:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{what} is missing, and CI must not skip what it could test. {remedy}")
        pytest.skip(f"{what} is missing. {remedy}")

    return report


@pytest.fixture
def chromium(missing: Callable[[str, str], NoReturn]) -> str:
    """Return the path of a Chromium or Chrome for tests that look at the MLflow UI."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    missing("chromium", "Install it, for example with: apt-get install chromium.")


@pytest.fixture(scope="session")
def campaign_count() -> int:
    """Return how often each fault or kill campaign is repeated: a few times, or CAMPAIGN_COUNT (`make campaign`)."""
    return int(os.environ.get("CAMPAIGN_COUNT", "2"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a tiny detection dataset: bright squares (class 0) and dark ones (class 1), 64 pixels."""
    import numpy as np
    import yaml
    from PIL import Image

    root = tmp_path_factory.mktemp("small-data")
    generator = np.random.default_rng(0)
    for split, count in {"train": 8, "val": 4, "test": 4}.items():
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(96, 160, (64, 64, 3), dtype=np.uint8)
            lines = []
            for kind, left in enumerate((4, 36)):
                side, top = int(generator.integers(14, 24)), int(generator.integers(4, 36))
                pixels[top : top + side, left : left + side] = 230 if kind == 0 else 20
                centre = ((left + side / 2) / 64, (top + side / 2) / 64)
                lines.append(f"{kind} {centre[0]:.6f} {centre[1]:.6f} {side / 64:.6f} {side / 64:.6f}")
            Image.fromarray(pixels).save(root / "images" / split / f"{split}{index}.png")
            (root / "labels" / split / f"{split}{index}.txt").write_text("\n".join(lines) + "\n")
    content = {"path": str(root), "train": "images/train", "val": "images/val", "test": "images/test"}
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "names": ["bright", "dark"]}))
    return root / "data.yaml"


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the yaml of a YOLO11 detector of 0.1 M parameters for two classes."""
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    content = yaml_model_load("yolo11n.yaml")
    content |= {"nc": 2, "scales": {"n": [0.33, 0.0625, 256]}, "scale": "n"}
    content.pop("yaml_file", None)
    file = tmp_path_factory.mktemp("small-model") / "yolo11n-small.yaml"
    file.write_text(yaml.safe_dump(content))
    return file
