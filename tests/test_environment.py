"""pyproject.toml, constraints.txt, conda.yaml, MLproject and the code name the same things."""

import ast
import importlib.metadata
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA: dict[str, Any] = yaml.safe_load((ROOT / "conda.yaml").read_text())
MLPROJECT: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
UNPINNED = {"pip", "setuptools", "wheel"}  # the tools that install; a build takes the newest


def requirements(*extras: str) -> list[Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def pinned() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (pin.split("==") for pin in PINS)}


def reachable(roots: Iterable[Requirement]) -> set[str]:
    """Return the names of all installed distributions that `roots` lead to in this environment."""
    todo, seen = list(roots), set[tuple[str, str]]()
    while todo:
        requirement = todo.pop()
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == canonicalize_name(requirement.name)}:
            seen.add((canonicalize_name(requirement.name), extra))
            for line in importlib.metadata.distribution(requirement.name).requires or []:
                needed = Requirement(line)
                if not needed.marker or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in seen}


def test_conda_yaml_lists_exactly_the_dependencies_of_pyproject() -> None:
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", *PROJECT["dependencies"]]


def test_conda_yaml_pins_a_python_that_the_package_supports() -> None:
    """A bare `python` makes MLflow's conversion for uv and virtualenv fail."""
    (python,) = [d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python")]
    version = python.removeprefix("python=")
    assert re.fullmatch(r"3\.\d+", version)
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)


def test_constraints_are_exact_pins_sorted_and_bound_to_no_machine() -> None:
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    names = [canonicalize_name(pin.split("==")[0]) for pin in PINS]
    assert names == sorted(set(names))


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pins = pinned()
    for requirement in requirements("test", "dev"):
        if requirement.name not in UNPINNED:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="pins were frozen on Linux, 3.11"
)
def test_everything_that_the_requirements_pull_in_is_pinned() -> None:
    assert reachable(requirements("test")) - pinned().keys() - UNPINNED == set()


def test_every_library_that_the_package_imports_is_a_declared_dependency() -> None:
    imported = set[str]()
    for path in (ROOT / "mlflow_yolo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    declared = {canonicalize_name(requirement.name) for requirement in requirements("openvino", "ray")}
    distributions = importlib.metadata.packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - {"mlflow_yolo"}
    # mlflow and mlflow-skinny both provide `mlflow`, so one declared provider is enough.
    assert {m for m in foreign if not {canonicalize_name(d) for d in distributions.get(m, [])} & declared} == set()


@pytest.mark.parametrize("entry_point", MLPROJECT["entry_points"])
def test_an_entry_point_hands_each_parameter_to_the_option_of_its_name(entry_point: str) -> None:
    spec = MLPROJECT["entry_points"][entry_point]
    command, parameters = spec["command"], spec.get("parameters", {})
    assert set(re.findall(r"\{(\w+)\}", command)) == set(parameters)
    for name in set(parameters) - {"directory"}:
        assert f"--{name} {{{name}}}" in command


@pytest.mark.parametrize("entry_point", MLPROJECT["entry_points"])
def test_the_default_command_of_an_entry_point_is_accepted_by_the_command_line(entry_point: str) -> None:
    from mlflow_yolo.cli import cli

    spec = MLPROJECT["entry_points"][entry_point]
    values = {name: parameter["default"] for name, parameter in spec.get("parameters", {}).items()}
    arguments = shlex.split(spec["command"].format(**values))[3:]
    command = cli.commands[arguments[0]]
    context = command.make_context(arguments[0], arguments[1:])
    assert not context.args, "options that the command does not know"


def test_defaults_survive_the_shell_quoting_with_which_mlflow_logs_them() -> None:
    for name, spec in MLPROJECT["entry_points"].items():
        for parameter, definition in spec.get("parameters", {}).items():
            assert shlex.quote(str(definition["default"])) == str(definition["default"]), (name, parameter)
