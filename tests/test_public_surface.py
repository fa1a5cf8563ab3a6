import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mlflow_yolo

PUBLIC = {
    "Detector",
    "FreezeQuestion",
    "Map",
    "MlflowYoloError",
    "__version__",
    "autolog",
    "explain",
    "load_dataset",
    "load_model",
    "load_statistics",
    "log_model",
    "open_run",
    "replay",
    "run_freeze_ablation",
    "save_model",
    "track",
}
"""A name that appears or goes is a change for users: README and CHANGELOG say so."""


def test_the_public_names_are_these() -> None:
    assert set(mlflow_yolo.__all__) == PUBLIC


def test_public_names_are_few_sorted_and_each_resolves_to_itself() -> None:
    assert mlflow_yolo.__all__ == sorted(mlflow_yolo.__all__)
    assert len(set(mlflow_yolo.__all__) - {"__version__"}) <= 15
    for name in set(mlflow_yolo.__all__) - {"__version__"}:
        assert getattr(mlflow_yolo, name).__name__ == name


def test_a_lazy_name_is_the_object_of_its_module() -> None:
    from mlflow_yolo.exceptions import MlflowYoloError

    assert mlflow_yolo.MlflowYoloError is MlflowYoloError
    assert set(mlflow_yolo.__all__) <= set(dir(mlflow_yolo))


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="frieze_ablation"):
        _ = mlflow_yolo.frieze_ablation


def test_importing_the_package_loads_no_heavy_library(repository: Path) -> None:
    heavy = {"torch", "ultralytics", "mlflow", "numpy", "pandas", "matplotlib", "sklearn", "scipy", "click"}
    script = "import sys, mlflow_yolo; mlflow_yolo.MlflowYoloError; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=repository)
    assert heavy & set(loaded.split()) == set()


def test_the_detector_loads_neither_torch_nor_ultralytics(repository: Path) -> None:
    script = "import sys, mlflow_yolo; mlflow_yolo.Detector; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=repository)
    assert {"torch", "torchvision", "ultralytics", "mlflow", "matplotlib"} & set(loaded.split()) == set()


def test_the_wheel_takes_its_version_from_the_package(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mlflow_yolo.__version__"}
    assert f"## {mlflow_yolo.__version__} " in (repository / "CHANGELOG.md").read_text()
