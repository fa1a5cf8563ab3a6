from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.studies.tuning.model_words import read_models


def test_a_size_is_the_base_model_in_that_size() -> None:
    found = read_models(["n", "s"], base="yolo11m.yaml", trust=False)
    assert {word: model.source for word, model in found.items()} == {"n": "yolo11n.yaml", "s": "yolo11s.yaml"}


def test_the_rest_of_the_base_models_name_stays() -> None:
    assert read_models(["s"], base="yolov8n-seg.yaml", trust=False)["s"].task == "segment"


def test_a_size_of_a_checkpoint_lies_beside_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path / "yolo11s.pt")):
        read_models(["s"], base=str(tmp_path / "yolo11n.pt"), trust=False)


def test_a_size_of_the_shipped_checkpoint_is_the_published_one_of_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_yolo.models.checkpoint._download", lambda name: pytest.fail(name))
    with pytest.raises(pytest.fail.Exception, match=r"^yolo11n\.pt$"):
        read_models(["n"], base="digits", trust=False)


def test_names_are_taken_as_they_are() -> None:
    found = read_models(["digits", "yolov8n.yaml"], base="digits", trust=False)
    assert found["digits"].sha256
    assert found["yolov8n.yaml"].source == "yolov8n.yaml"


def test_models_of_different_tasks_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"model=yolo11n-seg\.yaml is for segment, model=digits for detect"):
        read_models(["digits", "yolo11n-seg.yaml"], base="digits", trust=False)


def test_a_base_of_no_known_family_has_no_sizes(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    backbone = "  - [-1, 1, Conv, [8, 3, 2]]\n  - [-1, 1, Conv, [16, 3, 2]]\n"
    own.write_text(f"nc: 2\nbackbone:\n{backbone}head:\n  - [[0, 1], 1, Detect, [nc]]\n")
    with pytest.raises(ArgumentError, match="does not say of which family"):
        read_models(["n"], base=str(own), trust=False)
