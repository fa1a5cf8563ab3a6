"""The journal file: whole lines come back, torn ones do not, and what is delivered is known."""

import json
from pathlib import Path

import pytest

from mlflow_yolo.tracking.delivery.journal import (
    Cursor,
    Entry,
    count_pending,
    is_delivered,
    last_record,
    opening,
    parse_lines,
    read_entries,
)


def test_a_line_longer_than_a_chunk_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps({"type": "tags", "values": {"a": "x" * 500}}) + "\n")
    (entry,) = read_entries(path, limit_bytes=64)
    assert len(entry.record["values"]["a"]) == 500


def test_a_damaged_line_in_the_middle_is_passed_over() -> None:
    entries = list(parse_lines(b'{"type": "tags"}\n\x00\x00\n[1]\n{"type": "params"}\n', 7))
    assert [entry.record["type"] for entry in entries] == ["tags", "damaged", "damaged", "params"]
    assert entries[0].end == 7 + 17


def test_a_missing_file_and_a_device_give_nothing(tmp_path: Path) -> None:
    assert read_entries(tmp_path / "none") == []
    assert read_entries(Path("/dev/zero")) == []
    assert opening(tmp_path / "none") is None


def test_the_cursor_is_stored_and_a_damaged_one_means_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    cursor = Cursor(tracking_uri="u", run_id="r", values=7, files=3)
    cursor.save(path)
    assert Cursor.load(path) == cursor
    path.with_suffix(".sent").write_text('{"valu')
    assert Cursor.load(path) == Cursor()


def test_values_and_files_are_pending_apart() -> None:
    entries = [Entry({"type": "metrics"}, 10), Entry({"type": "file"}, 20), Entry({"type": "tags"}, 30)]
    assert count_pending(entries, Cursor()) == 3
    assert count_pending(entries, Cursor(values=30)) == 1
    assert count_pending(entries, Cursor(values=20, files=20)) == 1
    assert count_pending(entries, Cursor(values=30, files=30)) == 0


def test_the_last_record_is_read_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert last_record(path) is None
    lines = [json.dumps({"type": "tags", "values": {"a": "x" * size}}) for size in (10, 9000, 5000)]
    path.write_text("\n".join(lines) + '\n{"type": "met')
    assert last_record(path) == json.loads(lines[-1])
    path.write_text('{"type": "met')
    assert last_record(path) is None


@pytest.mark.parametrize(
    ("tail", "sent", "delivered"),
    [("", 1.0, True), ("", 0.5, False), ('{"type": "open"}\n', 1.0, False), ('{"type"', 1.0, False)],
)
def test_a_journal_is_delivered_when_it_was_closed_and_sent_to_its_end(
    tmp_path: Path, tail: str, sent: float, *, delivered: bool
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"type": "open"}\n{"type": "close"}\n' + tail)
    size = path.stat().st_size if tail == '{"type": "open"}\n' else path.stat().st_size - len(tail)
    Cursor(values=int(size * sent), files=size).save(path)
    assert is_delivered(path) is delivered
