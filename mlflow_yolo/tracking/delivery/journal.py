"""The journal: an append-only file of records, one JSON object a line, and how far they are delivered.

It is written by `journal_writer`, sent by `sender` and read here.

Layout under a run's directory:
    run.json                          which run this is (see `run_file`)
    mlflow_yolo/journal.jsonl         the records
    mlflow_yolo/journal.sent          how far they are delivered (`Cursor`)
    mlflow_yolo/journal.lock          held by the process that owns the journal
    mlflow_yolo/files/, images/       what has to be uploaded and lies nowhere else
    mlflow_yolo/earlier/<uid>/        journals of earlier runs in the same directory
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

Record = dict[str, Any]

FILE_TYPES = frozenset({"file"})
_CHUNK_BYTES = 1 << 20
_FIRST_BYTES = 1 << 12  # the `open` record is the first one


def journal_path(directory: Path) -> Path:
    """Return the journal of the run in `directory`."""
    return directory / "mlflow_yolo" / "journal.jsonl"


def run_directory(journal: Path) -> Path:
    """Return the directory that the paths in `journal` are relative to."""
    return journal.parents[3] if is_archived(journal) else journal.parents[1]


def is_archived(journal: Path) -> bool:
    """Return whether `journal` belongs to an earlier run in its directory."""
    return journal.parents[1].name == "earlier"


@dataclass(frozen=True)
class Entry:
    """One journaled record and the byte offset of the line after it."""

    record: Record
    end: int


@dataclass(frozen=True)
class Cursor:
    """How far a journal is delivered. Values and files advance apart: a failing upload does not hold back metrics.

    Attributes:
        tracking_uri: Where it was sent.
        run_id: The run's id there.
        values: Byte up to which everything but files is delivered.
        files: Byte up to which files are.
    """

    tracking_uri: str = ""
    run_id: str | None = None
    values: int = 0
    files: int = 0

    @classmethod
    def load(cls, journal: Path) -> "Cursor":
        """Return the stored cursor of `journal`; the beginning where there is none or it is damaged."""
        try:
            return cls(**json.loads(journal.with_suffix(".sent").read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, journal: Path) -> None:
        """Replace the stored cursor in one step. A full disk leaves the old one, which only sends some values twice."""
        with contextlib.suppress(OSError):
            write_atomically(journal.with_suffix(".sent"), json.dumps(asdict(self)))

    def moved(self, **changes: Any) -> "Cursor":
        """Return a cursor with `changes`."""
        return replace(self, **changes)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place, so that a reader sees the old or the new, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_entries(
    journal: Path, offset: int = 0, *, limit_bytes: int = _CHUNK_BYTES, types: frozenset[str] | None = None
) -> list[Entry]:
    """Return the whole records of `journal` from byte `offset` on, about `limit_bytes` of them.

    With `types`, records that are of none of these types come back as empty ones, which costs no decoding.

    A last line without its newline (torn by a kill, or still being written) is left for later; a damaged line in the
    middle is passed over. A file that is missing or no regular file gives nothing.
    """
    if not journal.is_file():
        return []
    try:
        with journal.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(limit_bytes)
            if b"\n" not in data and len(data) == limit_bytes:
                data += stream.readline()
    except OSError:
        return []
    return list(parse_lines(data, offset, types=types))


def parse_lines(data: bytes, offset: int = 0, *, types: frozenset[str] | None = None) -> Iterator[Entry]:
    """Yield the records in `data`, whose first byte stands at `offset`; what follows the last newline is ignored."""
    marks = [json.dumps(kind).encode() for kind in types or ()]
    for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        if marks and not any(mark in line for mark in marks):
            yield Entry({}, offset)
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        yield Entry(record if isinstance(record, dict) else {"type": "damaged"}, offset)


def read_all(journal: Path, offset: int = 0, *, limit_bytes: int = _CHUNK_BYTES) -> Iterator[Entry]:
    """Yield every whole record of `journal` from byte `offset` on, reading about `limit_bytes` at a time."""
    while entries := read_entries(journal, offset, limit_bytes=limit_bytes):
        yield from entries
        offset = entries[-1].end


def opening(journal: Path) -> Record | None:
    """Return the first `open` record of `journal`, or None when none reached the disk."""
    entries = read_all(journal, limit_bytes=_FIRST_BYTES)
    return next((e.record for e in entries if e.record.get("type") == "open"), None)


def last_record(journal: Path) -> Record | None:
    """Return the last whole record of `journal`, read from the end of the file; None where there is none."""
    if not journal.is_file():
        return None
    try:
        with journal.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            length = 4096
            while True:
                stream.seek(max(0, end - length))
                lines = stream.read(length).split(b"\n")
                if len(lines) > 2 or length >= end:
                    break
                length *= 8
    except OSError:
        return None
    whole = [line for line in lines[:-1] if line]
    return next(parse_lines(whole[-1] + b"\n")).record if whole else None


def is_delivered(journal: Path) -> bool:
    """Return whether the last run in `journal` was closed and everything is at the server; reads only the file's end.

    A torn last line does not count: it belongs to a process that was killed.
    """
    cursor = Cursor.load(journal)
    last = last_record(journal) or {}
    with contextlib.suppress(OSError):
        return last.get("type") == "close" and min(cursor.values, cursor.files) >= journal.stat().st_size
    return False


def count_pending(entries: Iterable[Entry], cursor: Cursor) -> int:
    """Return how many of `entries` the server has not yet been given."""
    return sum(
        entry.end > (cursor.files if entry.record.get("type") in FILE_TYPES else cursor.values) for entry in entries
    )
