from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.space_text import read_entries


def written(directory: Path, text: str) -> str:
    file = directory / "space.yml"
    file.write_text(text)
    return str(file)


def test_entries_are_joined_by_commas() -> None:
    assert read_entries(" freeze=0:3, optimizer=SGD+AdamW ,") == {"freeze": "0:3", "optimizer": "SGD+AdamW"}


def test_a_model_file_at_the_end_is_no_yaml_space() -> None:
    assert read_entries("model=yolo11n.yaml+yolo11s.yaml") == {"model": "yolo11n.yaml+yolo11s.yaml"}


def test_yaml_values_are_read_as_they_are_written(tmp_path: Path) -> None:
    # YAML 1.1 takes 1:30 for 90 seconds, 1e-4 for a word, no for false, and 0o17 for 15.
    text = "epochs: 1:30\nlr0: 1e-4:1e-1:log\nprune: 0:0.6\noptimizer: [SGD, AdamW]\ncos_lr: [true, false]\nfreeze: 3\n"
    assert read_entries(written(tmp_path, text)) == {
        "epochs": "1:30",
        "lr0": "1e-4:1e-1:log",
        "prune": "0:0.6",
        "optimizer": "SGD+AdamW",
        "cos_lr": "true+false",
        "freeze": "3",
    }


def test_a_mapping_names_the_ends_of_a_range(tmp_path: Path) -> None:
    lines = ["lr0: {low: 1e-4, high: 1e-1, log: true}", "prune:", "  high: 0.6", "  low: 0", "  step: 0.2"]
    text = "\n".join([*lines, "box: {low: 1, high: 2, log: false}"])
    assert read_entries(written(tmp_path, text)) == {"lr0": "1e-4:1e-1:log", "prune": "0:0.6:0.2", "box": "1:2"}


@pytest.mark.parametrize("text", ["", " , ", "freeze", "freeze=", "=0:3", "lr0=0:1,freeze"])
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="space"):
        read_entries(text)


def test_a_dimension_twice_is_refused_in_yaml_too(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="freeze twice"):
        read_entries("freeze=0:3,lr0=1,freeze=4")
    with pytest.raises(ArgumentError, match="freeze twice"):
        read_entries(written(tmp_path, "freeze: 0:3\nfreeze: 0:4\n"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- freeze\n", "holds no dimensions"),
        ("", "holds no dimensions"),
        ("freeze: [1, 2\n", "is not YAML"),
        ("lr0: {low: 1}\n", "lr0 needs low and high"),
        ("lr0: {low: 1, high: 2, steps: 3}\n", "lr0 needs low and high.*steps"),
        ("lr0: {low: 1, high: 2, log: maybe}\n", "maybe"),
        ("lr0:\n", "lr0 has no value"),
        ("lr0: [[1, 2]]\n", "lr0 has no value"),
    ],
)
def test_yaml_that_describes_no_space_is_refused_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ArgumentError, match=named) as error:
        read_entries(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"none\.yaml cannot be read"):
        read_entries(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ArgumentError, match=r"binary\.yaml"):
        read_entries(str(tmp_path / "binary.yaml"))
