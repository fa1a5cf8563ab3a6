import builtins
import inspect
import re

import pytest

from mlflow_yolo import exceptions
from mlflow_yolo.exceptions import GateError, InputError, MlflowYoloError

CLASSES = [value for _, value in inspect.getmembers(exceptions, inspect.isclass)]


def test_every_error_is_an_mlflow_yolo_error() -> None:
    assert all(issubclass(cls, MlflowYoloError) for cls in CLASSES)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not MlflowYoloError])
def test_every_error_is_also_the_builtin_that_fits(cls: type[MlflowYoloError]) -> None:
    native = [base for base in cls.__mro__ if base.__module__ == builtins.__name__ and base not in (Exception, object)]
    assert set(native) & {ValueError, RuntimeError}


@pytest.mark.parametrize("cls", CLASSES)
def test_bad_input_exits_with_2_a_gate_with_3_and_everything_else_with_1(cls: type[MlflowYoloError]) -> None:
    assert cls("message").exit_code == (2 if issubclass(cls, InputError) else 3 if cls is GateError else 1)


def test_the_tree_in_the_docstring_names_every_class_in_its_place() -> None:
    tree = re.findall(r"^ {4}([│├└─ ]*)(\w+)", inspect.getdoc(exceptions) or "", re.MULTILINE)
    depth = {name: len(indent) // 4 for indent, name in tree}
    # The base stands at the margin, and each further class on the path to it indents by one step of four columns.
    expected = {cls.__name__: sum(issubclass(base, MlflowYoloError) for base in cls.__mro__) - 1 for cls in CLASSES}
    assert depth == expected
