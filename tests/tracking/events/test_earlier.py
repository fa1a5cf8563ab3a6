"""A resumed training knows what was logged before it."""

import json
from pathlib import Path

import pytest

from mlflow_yolo.tracking.events.earlier import EarlierAttempts, missing_epochs, read_earlier


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    records = [
        {"type": "open", "t": 1, "uid": "a"},
        {"type": "params", "values": {"seed": "1", "args/imgsz": "64"}},
        {"type": "metrics", "t": 2, "step": 1, "values": {"train/box_loss": 3.0, "seconds_per_epoch": 5.0}},
        {"type": "metrics", "t": 2, "step": 1, "values": {"stats/gradient_norm": 9.0}},
        {"type": "open", "t": 3, "uid": "a"},
        {"type": "params", "values": {"seed": "2"}},
        {"type": "metrics", "t": 4, "step": 2, "values": {"train/box_loss": 2.0, "seconds_per_epoch": 6.0}},
        {"type": "metrics", "t": 4, "step": 3, "values": {"train/box_loss": 1.0, "seconds_per_epoch": 7.0}},
    ]
    file = tmp_path / "journal.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"type": "met')
    return file


def test_attempts_first_params_and_epochs_are_read_back(journal: Path) -> None:
    earlier = read_earlier(journal)

    assert (earlier.n_attempts, dict(earlier.params)) == (2, {"seed": "1", "args/imgsz": "64"})
    assert earlier.arguments() == {"imgsz": "64"}
    assert earlier.up_to(2) == [{"train/box_loss": 3.0, "seconds": 5.0}, {"train/box_loss": 2.0, "seconds": 6.0}]


def test_without_a_journal_nothing_was_before(tmp_path: Path) -> None:
    assert read_earlier(tmp_path / "none.jsonl") == EarlierAttempts()


def test_epochs_that_a_kill_kept_from_the_journal_come_from_ultralytics_table(journal: Path, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("epoch,time,train/box_loss,lr/pg0\n3,1.5,1.25,0.1\n4,2.5,1.125,0.05\n5,3.5,9,9\n")

    assert missing_epochs(table, read_earlier(journal), up_to=4) == {4: {"train/box_loss": 1.125, "lr/pg0": 0.05}}


@pytest.mark.parametrize("content", [None, "", "nothing\nof,use\n"])
def test_a_table_that_cannot_be_read_adds_nothing(tmp_path: Path, content: str | None) -> None:
    table = tmp_path / "results.csv"
    if content is not None:
        table.write_text(content)

    assert missing_epochs(table, EarlierAttempts(), up_to=9) == {}
