"""What of an append-only file can still be read, whatever has happened to it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_yolo.statistics import spool
from mlflow_yolo.statistics.spool import Spool, payloads, scan

TEXTS = (b"first", b"", b"\xf5sp1 looks like a beginning", b"x" * 5000)


def fill(path: Path, texts: tuple[bytes, ...] = TEXTS) -> None:
    writer = Spool(path)
    for number, text in enumerate(texts):
        writer.append(b"p", text, epoch=number, attempt=10 + number)


def contents(path: Path) -> list[tuple[int, bytes]]:
    return [(entry.epoch, payload) for entry, payload in payloads(path, scan(path))]


def test_records_come_back_with_their_labels_in_the_order_written(tmp_path: Path) -> None:
    fill(tmp_path / "spool")
    assert contents(tmp_path / "spool") == list(enumerate(TEXTS))
    assert [(entry.kind, entry.attempt) for entry in scan(tmp_path / "spool")] == [(b"p", 10 + n) for n in range(4)]


def test_a_missing_or_empty_file_holds_nothing(tmp_path: Path) -> None:
    assert scan(tmp_path / "missing") == []
    (tmp_path / "empty").touch()
    assert scan(tmp_path / "empty") == []


def test_a_file_cut_off_anywhere_keeps_every_record_that_is_whole(tmp_path: Path) -> None:
    texts = (b"one", b"two", b"three")
    fill(tmp_path / "spool", texts)
    whole = (tmp_path / "spool").read_bytes()
    ends = [entry.end for entry in scan(tmp_path / "spool")]
    for length in range(len(whole) + 1):
        torn = tmp_path / "torn"
        torn.write_bytes(whole[:length])
        expected = list(enumerate(texts[: sum(end <= length for end in ends)]))
        assert contents(torn) == expected
        Spool(torn).append(b"p", b"later", epoch=9, attempt=0)
        assert contents(torn) == [*expected, (9, b"later")]
        assert scan(torn)[-1].start == max([0, *(end for end in ends if end <= length)]) + spool._HEADER.size


@pytest.mark.parametrize("part", ["mark", "length", "payload"])
def test_a_damaged_record_costs_only_itself(tmp_path: Path, part: str) -> None:
    path = tmp_path / "spool"
    fill(path, (b"one", b"two", b"three"))
    data, start = bytearray(path.read_bytes()), scan(path)[1].start
    data[{"mark": start - spool._HEADER.size, "length": start - 6, "payload": start}[part]] ^= 0xFF
    path.write_bytes(data)
    assert contents(path) == [(0, b"one"), (2, b"three")]


def test_while_the_disk_refuses_records_wait_in_order_and_the_file_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool"
    writer = Spool(path)
    writer.append(b"p", b"before", epoch=0, attempt=0)
    size, write = path.stat().st_size, os.write

    def refuse(fd: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[: len(data) - 10])  # a part fits

    monkeypatch.setattr(os, "write", refuse)
    writer.append(b"p", b"during", epoch=1, attempt=0)
    assert writer.error == f"No space left on device: {path}"
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    assert path.stat().st_size == size
    assert contents(path) == [(0, b"before")]
    monkeypatch.undo()
    writer.append(b"p", b"after", epoch=2, attempt=0)
    assert writer.error == ""
    assert contents(path) == [(0, b"before"), (1, b"during"), (2, b"after")]


def test_memory_is_bounded_while_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_WAITING_BYTES", 300)
    (tmp_path / "folder").touch()
    writer = Spool(tmp_path / "folder" / "spool")
    for epoch in range(10):
        writer.append(b"p", b"x" * 76, epoch=epoch, attempt=0)  # 100 bytes with its header
    assert writer.n_dropped == 7
    (tmp_path / "folder").unlink()
    writer.flush()
    assert [epoch for epoch, _ in contents(writer.path)] == [7, 8, 9]


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from mlflow_yolo.statistics.spool import Spool
writer = Spool(Path({str(tmp_path / "spool")!r}))
for epoch in range(100_000):
    writer.append(b"p", str(epoch).encode() * 500, epoch=epoch, attempt=0)
    print(epoch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    found = contents(tmp_path / "spool")
    assert len(found) >= len(said) >= 50
    assert found == [(epoch, str(epoch).encode() * 500) for epoch in range(len(found))]
