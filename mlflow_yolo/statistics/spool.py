"""An append-only file of records that a `kill -9` cannot hurt: what was written whole stays readable.

Each record is a header (mark, kind, epoch, attempt, length, checksum) and a payload. A reader passes over a record
that is torn or damaged and goes on at the next mark; a writer that continues the file first cuts off a torn end.
Nothing depends on the clock or on the order of epochs.
"""

import contextlib
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_WAITING_BYTES = 64 << 20
"""How much is kept in memory while the disk refuses; of more, the oldest is dropped and counted."""

_MARK = b"\xf5sp1"
_HEADER = struct.Struct("<4sciiII")


@dataclass(frozen=True)
class Entry:
    """Where a record lies.

    Attributes:
        kind: One byte that says what the payload is.
        epoch: The epoch it belongs to.
        attempt: Which attempt at that epoch.
        start: Offset of its payload in the file, bytes.
        length: Length of its payload, bytes.
        checksum: CRC-32 of the payload.
    """

    kind: bytes
    epoch: int
    attempt: int
    start: int
    length: int
    checksum: int

    @property
    def end(self) -> int:
        """Offset of the byte after the record."""
        return self.start + self.length


class Spool:
    """The writing end. One thread may use it; while the disk refuses, records wait in memory.

    Attributes:
        error: Why the disk refused last time, empty while it accepts.
        n_dropped: Records that fitted neither on disk nor in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        self.n_dropped = 0
        self._waiting: deque[bytes] = deque()
        self._continued = False

    def append(self, kind: bytes, payload: bytes, *, epoch: int, attempt: int) -> None:
        """Write a record, and before it those that wait; never raises for disk trouble (see `error`)."""
        header = _HEADER.pack(_MARK, kind, epoch, attempt, len(payload), zlib.crc32(payload))
        self._waiting.append(header + payload)
        while sum(map(len, self._waiting)) > MAX_WAITING_BYTES:
            self._waiting.popleft()
            self.n_dropped += 1
        try:
            self.flush()
        except OSError as error:
            self.error = f"{error.strerror or error}: {self.path}"

    def flush(self) -> None:
        """Write the records that wait.

        Raises:
            OSError: The disk refuses; they go on waiting, and the file is as it was.
        """
        if self._waiting:
            self._write(b"".join(self._waiting))
            self._waiting.clear()
        self.error = ""

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._continued:
            cut_torn_end(self.path)
            self._continued = True
        # Opened for each write: parts come about once a second, and nothing has to be closed at interpreter exit.
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before, view = os.fstat(fd).st_size, memoryview(data)
            try:
                while view:
                    view = view[os.write(fd, view) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)


def cut_torn_end(path: Path) -> None:
    """Remove what follows the last whole record; a missing file stays missing."""
    if not path.exists():
        return
    end = max((entry.end for entry in scan(path)), default=0)
    if end < path.stat().st_size:
        os.truncate(path, end)


def scan(path: Path) -> list[Entry]:
    """Return where the whole records lie, in the order written; none for a missing file. Payloads are not read."""
    with _mapped(path) as data:
        return list(_entries(data))


def payloads(path: Path, entries: list[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Yield the payloads of `entries` in that order, without those whose checksum is wrong."""
    with _mapped(path) as data:
        for entry in entries:
            payload = bytes(data[entry.start : entry.end])
            if zlib.crc32(payload) == entry.checksum:
                yield entry, payload


def _entries(data: "mmap.mmap | bytes") -> Iterator[Entry]:
    position = data.find(_MARK)
    while 0 <= position <= len(data) - _HEADER.size:
        _, kind, epoch, attempt, length, checksum = _HEADER.unpack_from(data, position)
        entry = Entry(kind, epoch, attempt, position + _HEADER.size, length, checksum)
        if _is_whole(entry, data):
            yield entry
            position = data.find(_MARK, entry.end)
        else:
            position = data.find(_MARK, position + 1)


def _is_whole(entry: Entry, data: "mmap.mmap | bytes") -> bool:
    """Return whether a record ends where the next begins; only one that does not is read to be sure of it."""
    if entry.end > len(data):
        return False
    if data[entry.end : entry.end + len(_MARK)] == _MARK:
        return True
    return zlib.crc32(data[entry.start : entry.end]) == entry.checksum


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator["mmap.mmap | bytes"]:
    """Map the file's bytes; an empty or missing file gives none."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    if not size:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data
