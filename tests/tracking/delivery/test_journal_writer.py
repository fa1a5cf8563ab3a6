"""The journal's writer: whole lines, in order, and patience with a disk that refuses."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from mlflow_yolo.tracking.delivery import journal_writer as module
from mlflow_yolo.tracking.delivery.journal import parse_lines, read_all, read_entries
from mlflow_yolo.tracking.delivery.journal_writer import JournalWriter


def metrics(i: int) -> dict[str, object]:
    return {"type": "metrics", "t": i, "step": i, "values": {"a": float(i)}}


def test_records_come_back_in_order_with_the_offset_after_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    for i in range(5):
        writer.append(metrics(i))
    assert writer.close(5.0) == b""
    entries = list(read_all(path))
    assert [entry.record["step"] for entry in entries] == list(range(5))
    assert entries[-1].end == path.stat().st_size
    assert read_entries(path, entries[2].end) == entries[3:]


def test_a_value_is_on_disk_within_a_second_without_being_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    writer.append(metrics(1))
    deadline = time.monotonic() + 1.0
    while not read_entries(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(read_entries(path)) == 1
    writer.close(1.0)


def test_a_torn_last_line_is_not_read_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"type": "tags"}\n{"type": "met')
    assert [entry.record for entry in read_all(path)] == [{"type": "tags"}]
    writer = JournalWriter(path)
    writer.append(metrics(1))
    writer.close(5.0)
    assert [entry.record["type"] for entry in read_all(path)] == ["tags", "metrics"]
    assert path.read_text().count("\n") == 2


def test_a_file_that_is_one_torn_line_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("x" * 10_000)
    writer = JournalWriter(path)
    writer.append(metrics(1))
    writer.close(5.0)
    assert [entry.record["type"] for entry in read_all(path)] == ["metrics"]


def test_a_full_disk_keeps_the_lines_and_names_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    writer = JournalWriter(path)
    writer.append(metrics(1))
    assert not writer.flush(5.0)
    assert "No space left" in writer.error
    path.unlink()
    writer.append(metrics(2))
    assert writer.flush(5.0)
    assert writer.error == ""
    assert [entry.record["step"] for entry in read_all(path)] == [1, 2]
    writer.close(1.0)


def test_lines_that_never_reach_the_disk_are_handed_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    writer = JournalWriter(path)
    writer.append(metrics(1))
    assert [entry.record["step"] for entry in parse_lines(writer.close(5.0))] == [1]


def test_work_that_finds_the_disk_full_is_done_later_and_holds_up_no_values(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    room = threading.Event()

    def work(i: int) -> list[dict[str, object]]:
        if not room.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return [metrics(i)]

    writer = JournalWriter(path)
    writer.append(lambda: work(1))
    writer.append_later(lambda: work(2))
    writer.append(metrics(0))
    assert not writer.flush(5.0)
    assert "No space left" in writer.refusal
    assert [entry.record["step"] for entry in read_all(path)] == [0]
    room.set()
    assert writer.flush(5.0)
    writer.close(1.0)
    assert [entry.record["step"] for entry in read_all(path)] == [0, 2, 1]
    assert writer.n_bad_records == 0


def test_work_for_which_there_never_was_room_is_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[dict[str, object]]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "picture.png")

    monkeypatch.setattr(module, "MAX_WORK_IN_MEMORY", 2)
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    for _ in range(4):
        writer.append_later(fail)
    writer.append_later(lambda: [{"type": "close"}])
    writer.flush(5.0)
    assert writer.n_bad_records == 3  # two wait
    assert writer.close(5.0) == b""
    records = [entry.record for entry in read_all(path)]
    assert [record["type"] for record in records] == [*["rejected"] * 4, "close"]
    assert "picture.png" in records[3]["reason"]


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_journal_that_is_gone_is_put_back_whole(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run" / "journal.jsonl"
    asked: list[bool] = []
    writer = JournalWriter(path, reclaim=lambda: asked.append(path.exists()))
    writer.append(metrics(1))
    writer.flush(5.0)
    if how == "deleted":
        shutil.rmtree(path.parent)
    else:
        path.parent.rename(tmp_path / "elsewhere")
    if how == "replaced":  # as by a tool that brings back a backup
        path.parent.mkdir()
        path.write_text("")
    writer.append(metrics(2))
    writer.flush(5.0)
    writer.append(metrics(3))
    assert writer.close(5.0) == b""
    assert [entry.record["step"] for entry in read_all(path)] == [1, 2, 3]
    assert asked == [how == "replaced"]
    assert [file.name for file in path.parent.iterdir()] == ["journal.jsonl"]


def test_a_journal_deleted_while_the_disk_was_full_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "journal.jsonl"
    writer = JournalWriter(path)
    writer.append(metrics(1))
    writer.flush(5.0)
    shutil.rmtree(path.parent)
    path.parent.symlink_to("/dev/full")  # no directory: nothing can be made in it
    writer.append(metrics(2))
    assert not writer.flush(5.0)
    path.parent.unlink()
    assert writer.flush(5.0)
    writer.close(1.0)
    assert [entry.record["step"] for entry in read_all(path)] == [1, 2]


def test_a_place_that_somebody_else_has_taken_is_left_alone(tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError("taken")

    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path, reclaim=refuse)
    writer.append(metrics(1))
    writer.flush(5.0)
    path.unlink()
    path.write_text("theirs")
    writer.append(metrics(2))
    assert [entry.record["step"] for entry in parse_lines(writer.close(5.0))] == [2]
    assert "taken" in writer.error
    assert path.read_text() == "theirs"


def test_beyond_the_bound_the_oldest_metrics_go_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_METRICS_IN_MEMORY", 10)
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    writer = JournalWriter(path)
    writer.append({"type": "params", "values": {"kept": "1"}})
    for i in range(11):
        writer.append(metrics(i))
    kept = [entry.record for entry in parse_lines(writer.close(5.0))]
    assert writer.n_dropped_metrics == 2
    assert [record["type"] for record in kept] == ["params", *["metrics"] * 9]
    assert kept[-1]["step"] == 10


def test_a_failing_deferred_record_costs_only_itself(tmp_path: Path) -> None:
    def fail() -> list[dict[str, object]]:
        raise ValueError("no image")

    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    writer.append_later(lambda: [metrics(1), metrics(2)])
    writer.append_later(fail)
    writer.append_later(lambda: [])
    writer.append_later(lambda: [metrics(3)])
    writer.close(5.0)
    records = [entry.record for entry in read_all(path)]
    assert [record.get("step") for record in records] == [1, 2, None, 3]
    assert "no image" in records[2]["reason"]
    assert writer.n_bad_records == 1


def test_values_do_not_wait_for_slow_work(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    working, done = threading.Event(), threading.Event()

    def work() -> list[dict[str, object]]:
        working.set()
        assert done.wait(10)
        return [metrics(0)]

    writer.append_later(work)
    writer.append_later(lambda: [metrics(9)])
    writer.append(metrics(1))
    assert working.wait(10)
    assert [entry.record["step"] for entry in read_all(path)] == [1]  # on disk before the work began
    writer.append(metrics(2))
    done.set()
    writer.close(5.0)
    assert [entry.record["step"] for entry in read_all(path)] == [1, 0, 2, 9]


def test_a_record_that_cannot_be_encoded_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    loop: dict[str, object] = {"type": "tags"}
    loop["values"] = loop
    writer.append(loop)
    writer.append(metrics(1))
    writer.close(5.0)
    assert [entry.record["type"] for entry in read_all(path)] == ["rejected", "metrics"]


def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writer = JournalWriter(path)
    if (pid := os.fork()) == 0:
        writer.append(metrics(1))
        writer.write_now()
        os._exit(0)
    os.waitpid(pid, 0)
    writer.close(5.0)
    assert list(read_all(path)) == []
