"""The built wheel holds everything and runs where the working tree cannot be seen."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import mlflow_yolo

pytestmark = pytest.mark.slow

NOT_PACKAGED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".DS_Store")


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy (setuptools leaves build/ and egg-info behind) and without the network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(repository / name, source)
    shutil.copytree(repository / "mlflow_yolo", source / "mlflow_yolo", ignore=NOT_PACKAGED)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", source / "dist", source])
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with the wheel, which sees the installed dependencies but no tree."""
    home = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    run([*pip, "install", "--no-deps", "--no-index", wheel])
    # A path in a .pth file is searched, but .pth files inside it (an editable install) are not read.
    (site_packages,) = (home / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def run(command: list[str | Path]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path, repository: Path) -> None:
    packaged = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    present = {
        path.relative_to(repository).as_posix()
        for path in (repository / "mlflow_yolo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged == present


def test_the_wheel_holds_checkpoint_templates_types_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder, ending in [
        ("mlflow_yolo/checkpoints/", ".pt"),
        ("mlflow_yolo/figures/templates/", ""),
        ("", "py.typed"),
    ]:
        assert any(name.startswith(folder) and name.endswith(ending) for name in names), (folder, ending)
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_installed_package_is_the_wheel_and_not_the_working_tree(clean: Path) -> None:
    found = run([clean / "python", "-c", "import mlflow_yolo; print(mlflow_yolo.__file__)"])
    assert Path(found).is_relative_to(clean.parent)


def test_the_console_command_shows_its_help(clean: Path) -> None:
    assert "freeze-ablation" in run([clean / "mlflow-yolo", "--help"])


def test_the_module_says_its_version(clean: Path) -> None:
    assert mlflow_yolo.__version__ in run([clean / "python", "-m", "mlflow_yolo", "--version"])


def test_the_shipped_checkpoint_loads_from_the_installed_package(clean: Path) -> None:
    script = (
        "from importlib.resources import files; from ultralytics import YOLO;"
        "(checkpoint,) = [f for f in files('mlflow_yolo.checkpoints').iterdir() if f.name.endswith('.pt')];"
        "print(YOLO(checkpoint).task)"
    )
    assert run([clean / "python", "-c", script]).split()[-1] == "detect"
