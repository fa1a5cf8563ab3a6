"""Floors and owners of foreign libraries, as CONTRIBUTING.md lists them; imports inside functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mlflow_yolo"
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"exceptions", "keys", "blocks", "stages", "variant", "datasets", "checkpoints"},  # words: may use one another
    {"statistics", "detection", "classification", "attribution", "figures"},
    {"models", "runtime"},
    {"compression"},
    {"tracking", "registry"},
    {"ray_connection"},
    {"training", "explanation", "diagnosis", "deployment"},
    {"studies", "variants", "doctor"},
    {"cli", "__main__"},
    {"__init__"},  # the lazy public names
]
TRACKING = ["stores", "delivery", "run", "blocks", "maps", "events", "autolog"]
"""The floors of `tracking`; what is not named here stands beside `run`."""
SIBLINGS = {("registry", "tracking"), ("__main__", "cli")}
OWNERS = {
    "click": {"cli", "deployment.targets.plugin"},
    "fastapi": {"deployment"},
    "matplotlib": {"figures"},
    "cv2": {"runtime"},
    "mlflow": {"tracking", "registry", "deployment"},
    "modelopt": {"compression.quantization"},
    "nncf": {"compression.quantization"},
    "onnx": {"runtime", "compression", "registry.gates"},
    "onnxruntime": {"runtime", "compression"},
    "openvino": {"runtime", "compression.quantization"},
    "optuna": {"studies"},
    "plotly": {"figures"},
    "prometheus_client": {"deployment"},
    "psycopg2": set(),  # SQLAlchemy finds it by the URL
    "ray": {"ray_connection", "studies.executors", "deployment"},
    "sklearn": {"datasets.digits"},
    "sqlalchemy": {"studies.tuning.storage"},
    "starlette": {"deployment"},
    "torch_pruning": {"compression.pruning"},
    "uvicorn": {"deployment"},
    "ultralytics": {"models", "compression", "tracking.autolog", "training", "explanation", "diagnosis"},
}


def name_of(path: Path) -> str:
    """Return the dotted name below the package: `tracking.store`, `cli`, and `__init__` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively; write the whole name"
            # `from mlflow_yolo import keys` names a floor, `from mlflow_yolo.keys import sanitise` has it already.
            names = [alias.name for alias in node.names] if node.module == "mlflow_yolo" else [""]
            yield from (f"{node.module}.{name}".rstrip(".") for name in names)


def floor_of(unit: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if unit in floor)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_the_floors_only(path: Path) -> None:
    here = name_of(path).split(".")[0]
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("mlflow_yolo.")} - {here, "__version__"}
    allowed = {unit for floor in FLOORS[: max(floor_of(here), 1)] for unit in floor}
    assert used - allowed - {there for unit, there in SIBLINGS if unit == here} == set()


def tracking_floor_of(name: str) -> int:
    part = name.split(".")[1]
    return TRACKING.index(part if part in TRACKING else "run")


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("tracking.")], ids=name_of)
def test_imports_within_tracking_go_down_its_floors_only(path: Path) -> None:
    used = {name.removeprefix("mlflow_yolo.") for name in imports_of(path) if name.startswith("mlflow_yolo.tracking.")}
    assert {name for name in used if tracking_floor_of(name) > tracking_floor_of(name_of(path))} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_foreign_libraries_are_imported_by_their_owners_only(path: Path) -> None:
    here = name_of(path) + "."
    foreign = {name.split(".")[0] for name in imports_of(path)} & OWNERS.keys()
    assert {lib for lib in foreign if not any(here.startswith(f"{owner}.") for owner in OWNERS[lib])} == set()


def test_every_subpackage_has_an_init_so_that_the_wheel_holds_it() -> None:
    assert {path.parent for path in MODULES} == {path.parent for path in PACKAGE.rglob("__init__.py")}
