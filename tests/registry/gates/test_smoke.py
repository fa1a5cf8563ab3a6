from pathlib import Path

import pytest

from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.gates.smoke import smoke
from tests.registry.gates.made import METADATA, a_variant, a_version, evidence, write_model

ONLY = Limits().only(["smoke"])


def again(version: Fetched, **changes: object) -> None:
    """Describe the version's file, which was written anew."""
    a_variant(version.folder, **changes)


def test_a_model_that_answers_everything_passes(version: Fetched) -> None:
    found = smoke(evidence(version), Limits())
    assert (found.passed, found.value) == (True, "9 inputs")


def test_a_classifier_that_answers_everything_passes(tmp_path: Path) -> None:
    version = a_version(tmp_path / "1")
    write_model(version.folder / "model.onnx", n_rows=2, task="classify", metadata=METADATA | {"task": "classify"})
    again(version, task="classify")
    assert smoke(evidence(version), Limits()).passed


def test_an_output_that_is_not_a_number_fails_and_the_input_is_named(version: Fetched) -> None:
    write_model(version.folder / "model.onnx", poison="black")
    again(version)
    found = smoke(evidence(version), Limits())
    assert (found.passed, found.value) == (False, "0 of 9 inputs")
    assert "black: an output is not a number" in found.why


def test_an_answer_of_more_classes_than_names_fails(version: Fetched) -> None:
    write_model(version.folder / "model.onnx", n_rows=7)
    again(version)
    found = smoke(evidence(version), Limits())
    assert not found.passed
    assert "CheckpointError" in found.why


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_file_that_does_not_open_fails(version: Fetched, content: bytes) -> None:
    (version.folder / "model.onnx").write_bytes(content)
    again(version)
    found = judge(evidence(version), ONLY)[-1]
    assert (found.gate, found.passed) == ("smoke", False)
    assert "model.onnx" in found.why


def test_bytes_that_have_changed_are_not_opened(version: Fetched) -> None:
    write_model(version.folder / "model.onnx", n_rows=7)
    found = judge(evidence(version), ONLY)[-1]
    assert not found.passed
    assert "has changed" in found.why
