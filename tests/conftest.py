"""Isolation of process-wide state, and the stores that tests write to.

MLflow and Ultralytics keep state in the environment, in module globals and in the user's home. Every piece that could
leak from one test into the next, or from the developer's shell into a test, is reset here with its reason.
"""

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlflow_yolo.training.plan import Plan

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
    # Eight processes beside every MLflow server, for evaluations that nobody asks for: minutes of a whole run.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    # The generated data sets are the same for every test of a session; a developer may keep them between sessions.
    os.environ.setdefault("MLFLOW_YOLO_CACHE", str(scratch / "cache"))


@pytest.fixture(autouse=True)
def isolated_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test its own tracking URI and working directory, and take back what it left behind."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        if name not in ("MLFLOW_YOLO_CACHE", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):
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
    return _copy_store(store_template, tmp_path)


def _copy_store(template: Path, folder: Path) -> str:
    database = folder / "mlflow.db"
    shutil.copyfile(template, database)
    # The default experiment's artifacts would otherwise go to the template's folder.
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),))
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


@dataclass(frozen=True)
class Trained:
    """One finished, tracked training that many tests look at; none may change it."""

    plan: "Plan"
    directory: Path
    uri: str
    exit_code: int
    reports: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    run_id: str
    client: "MlflowClient"


@dataclass(frozen=True)
class PlainlyTrained:
    """The same training by Ultralytics alone, and what an independent reader saw around each optimizer step."""

    save_dir: Path
    steps: Sequence[Mapping[str, Any]]


@pytest.fixture(scope="session")
def digits_plan(tmp_path_factory: pytest.TempPathFactory) -> "Plan":
    """Return a short training that scores well at once: the shipped checkpoint on 16 of its own kind of scenes."""
    from mlflow_yolo import checkpoints
    from mlflow_yolo.datasets.digits import generate
    from mlflow_yolo.training.plan import Plan, Stage

    data = generate("digits", cache_dir=tmp_path_factory.mktemp("digits"), n_train=16, n_val=8, n_test=6)
    return Plan(
        model=str(checkpoints.path()),
        data=str(data),
        task="detect",
        stages=(Stage(2, (0, 1, 2), 0.001, 0.5),),
        seed=3,
        imgsz=128,
        batch=4,
        device="cpu",
        optimizer="AdamW",
        # nbs: an optimizer step for every batch, so four an epoch.
        arguments={"workers": 0, "nbs": 4},
        every_n_steps=1,
    )


@pytest.fixture(scope="session")
def trained(digits_plan: "Plan", tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator["Trained"]:
    """Return a real training of two epochs with three frozen blocks, done once a session."""
    from mlflow import MlflowClient

    from mlflow_yolo.tracking.delivery.run_file import read_run_file
    from mlflow_yolo.training.job import read_json, run_job

    root = tmp_path_factory.mktemp("trained")
    uri, directory = _copy_store(store_template, root), root / "child"
    job = {
        "plan": digits_plan.to_json(),
        "params": {"freeze": 3, "seed": 3, "lr0": 0.001},
        "shared": str(root / "shared"),
        "run": {"tracking_uri": uri, "experiment": "Default", "name": "freeze=3 seed=3"},
    }
    reports: list[dict[str, Any]] = []
    code = run_job(job, directory=directory, report=reports.append)
    run_file = read_run_file(directory)
    assert run_file is not None
    assert run_file.run_id is not None
    client = MlflowClient(tracking_uri=uri)
    result = read_json(directory / "result.json")
    yield Trained(digits_plan, directory, uri, code, reports, result, run_file.run_id, client)
    client._tracking_client.store.engine.dispose()


@pytest.fixture(scope="session")
def plainly_trained(digits_plan: "Plan", tmp_path_factory: pytest.TempPathFactory) -> PlainlyTrained:
    """Return the training of `trained` done by Ultralytics without this package."""
    from ultralytics import YOLO

    save_dir = tmp_path_factory.mktemp("plainly-trained") / "train"
    network, steps = YOLO(digits_plan.model), []

    def watch(trainer: Any) -> None:
        original = trainer.optimizer_step

        def step() -> None:
            import numpy as np

            def read(what: str) -> dict[str, Any]:
                named = trainer.model.named_parameters()
                tensors = {n: p.grad if what == "gradients" else p for n, p in named if p.requires_grad}
                return {n: t.detach().numpy().astype(np.float64) for n, t in tensors.items() if t is not None}

            gradients, before = read("gradients"), read("weights")
            original()
            steps.append(
                {"epoch": trainer.epoch + 1, "gradients": gradients, "before": before, "after": read("weights")}
            )

        trainer.optimizer_step = step

    network.add_callback("on_train_start", watch)
    network.train(
        data=digits_plan.data,
        epochs=2,
        freeze=[0, 1, 2],
        lr0=0.001,
        warmup_epochs=0.5,
        optimizer="AdamW",
        seed=3,
        imgsz=128,
        batch=4,
        nbs=4,
        workers=0,
        device="cpu",
        plots=False,
        save_dir=str(save_dir),
        exist_ok=True,
    )
    return PlainlyTrained(save_dir, steps)


class RecordedRun:
    """Stands in for a `TrackedRun`: keeps what is logged, in order, and can be told to fail."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.params: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self.files: list[tuple[str, str]] = []
        self.images: list[tuple[str, int]] = []
        self.texts: dict[str, str] = {}
        self.datasets: list[dict[str, Any]] = []
        self.fails_to_log_metrics = False

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, timestamp_ms: int | None = None) -> None:
        if self.fails_to_log_metrics:
            raise RuntimeError("no metrics today")
        self.metrics.append((step, dict(values)))

    def log_params(self, values: Mapping[str, Any]) -> None:
        self.params |= values

    def set_tags(self, values: Mapping[str, str]) -> None:
        self.tags |= values

    def log_file(self, path: Path, artifact_path: str = "") -> None:
        assert Path(path).is_file()
        self.files.append((Path(path).name, artifact_path))

    def log_text(self, text: str, artifact_file: str) -> None:
        self.texts[artifact_file] = text

    def log_image(self, key: str, image: Any, *, step: int) -> None:
        self.images.append((key, step))

    def log_dataset(self, name: str, digest: str, **details: Any) -> None:
        self.datasets.append({"name": name, "digest": digest, **details})

    def value(self, key: str, *, step: int = 0) -> float:
        """Return the one value of a key and step."""
        (value,) = [values[key] for at, values in self.metrics if at == step and key in values]
        return value


@pytest.fixture(scope="session")
def recorded_run_type() -> type[RecordedRun]:
    """Return the class of runs that only remember what they are told."""
    return RecordedRun


@pytest.fixture
def recorded_run(tmp_path: Path) -> RecordedRun:
    """Return a run that only remembers what it is told."""
    return RecordedRun(tmp_path / "run")


@pytest.fixture(scope="session")
def small_arguments(small_data: Path) -> Mapping[str, Any]:
    """Return Ultralytics arguments of a training of `small_model` on `small_data` that takes about a second."""
    return {
        "data": str(small_data),
        "epochs": 2,
        "imgsz": 64,
        "batch": 4,
        "nbs": 4,
        "workers": 0,
        "device": "cpu",
        "optimizer": "AdamW",
        "lr0": 0.01,
        "warmup_epochs": 0.0,
        "seed": 1,
        "freeze": [0, 1],
        "plots": False,
        "verbose": False,
        "exist_ok": True,
    }
