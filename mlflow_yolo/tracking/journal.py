"""The journal: an append-only file of records, one JSON object a line, written by a thread of its own.

The trainer's thread only puts a line into a buffer. The writer thread moves the buffer to disk a quarter of a second
later, so a `kill -9` loses less than one second and the network is never waited for. While the disk refuses, lines
stay in memory (the oldest metrics beyond a bound are dropped and counted) and writing is tried again.

Layout under a run's directory:
    run.json                          which run this is (see `run_file`)
    mlflow_yolo/journal.jsonl         the records
    mlflow_yolo/journal.sent          how far they are delivered (`Cursor`)
    mlflow_yolo/journal.lock          held by the process that owns the journal
    mlflow_yolo/files/, images/       what has to be uploaded and lies nowhere else
    mlflow_yolo/earlier/<uid>/        journals of earlier runs in the same directory
"""

import atexit
import contextlib
import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

Record = dict[str, Any]

FILE_TYPES = frozenset({"file"})
WRITE_INTERVAL_S = 0.25
RETRY_INTERVAL_S = 1.0
MAX_METRICS_IN_MEMORY = 200_000
_CHUNK_BYTES = 1 << 20


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
    """How far a journal is delivered. Values and files advance apart: a failing upload does not hold back metrics."""

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


def read_entries(journal: Path, offset: int = 0, *, limit_bytes: int = _CHUNK_BYTES) -> list[Entry]:
    """Return the whole records of `journal` from byte `offset` on, about `limit_bytes` of them.

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
    return list(parse_lines(data, offset))


def parse_lines(data: bytes, offset: int = 0) -> Iterator[Entry]:
    """Yield the records in `data`, whose first byte stands at `offset`; what follows the last newline is ignored."""
    for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        yield Entry(record if isinstance(record, dict) else {"type": "damaged"}, offset)


def read_all(journal: Path, offset: int = 0) -> Iterator[Entry]:
    """Yield every whole record of `journal` from byte `offset` on."""
    while entries := read_entries(journal, offset):
        yield from entries
        offset = entries[-1].end


def opening(journal: Path) -> Record | None:
    """Return the first `open` record of `journal`, or None when none reached the disk."""
    return next((e.record for e in read_all(journal) if e.record.get("type") == "open"), None)


def count_pending(entries: Iterable[Entry], cursor: Cursor) -> int:
    """Return how many of `entries` the server has not yet been given."""
    return sum(
        entry.end > (cursor.files if entry.record.get("type") in FILE_TYPES else cursor.values) for entry in entries
    )


@dataclass(frozen=True)
class _Line:
    data: bytes
    n_metrics: int


class JournalWriter:
    """The buffer and the thread that moves it to disk. No method raises for disk trouble.

    Attributes:
        error: Why the disk refused the last write, empty while it accepts.
        refusal: Why it refused last, also when it accepts again.
        n_dropped_metrics: Values that fitted neither on disk nor in memory.
        n_bad_records: Deferred records that could not be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        self.refusal = ""
        self.n_dropped_metrics = 0
        self.n_bad_records = 0
        self._pid = os.getpid()
        self._fd: int | None = None
        self._buffer: deque[_Line | Callable[[], list[Record]]] = deque()
        self._n_buffered_metrics = 0
        self._closing = False
        self._attempts = 0
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-yolo-journal", daemon=True)
        atexit.register(self.write_now)
        self._thread.start()

    def append(self, record: Mapping[str, Any]) -> None:
        """Buffer one record: no I/O, no waiting. A forked child's records are ignored: it does not own the journal."""
        if os.getpid() == self._pid:
            self._put(_line(record))

    def append_later(self, make: Callable[[], list[Record]]) -> None:
        """Buffer work whose records are only made by the writer thread (encoding an image), in order."""
        if os.getpid() == self._pid:
            self._put(make)

    def flush(self, timeout_s: float) -> bool:
        """Write now; return whether everything reached the disk. Returns early when the disk refuses."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            before = self._attempts
            while self._buffer and self._thread.is_alive():
                self._hurry.set()
                self._changed.notify_all()
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or (self.error and self._attempts > before):
                    break
                self._changed.wait(min(remaining_s, 0.1))
            return not self._buffer

    def close(self, timeout_s: float) -> bytes:
        """Flush, end the thread, and return the lines that could not be written (empty if all is on disk)."""
        self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._hurry.set()
            self._changed.notify_all()
        self._thread.join(max(0.1, timeout_s))
        atexit.unregister(self.write_now)
        with self._changed:
            return b"".join(item.data for item in self._buffer if isinstance(item, _Line))

    def n_unwritten(self) -> int:
        """Return how many records are still in memory only."""
        with self._changed:
            return len(self._buffer)

    def write_now(self) -> None:
        """Write the buffer from the calling thread; also run at interpreter exit, when nobody called `close`."""
        if os.getpid() != self._pid:
            return
        with self._writing:
            self._make_deferred()
            with self._changed:
                lines = [item for item in self._buffer if isinstance(item, _Line)]
            try:
                if lines:
                    self._write(b"".join(line.data for line in lines))
            except OSError as error:
                self.error = self.refusal = f"{error.strerror or error}: {self.path}"
            else:
                self.error = ""
                self._forget(lines)
            with self._changed:
                self._attempts += 1
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._closing)
            self._hurry.wait(RETRY_INTERVAL_S if self.error else WRITE_INTERVAL_S)
            self._hurry.clear()
            self.write_now()
            with self._changed:
                if self._closing:
                    break
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _put(self, item: "_Line | Callable[[], list[Record]]") -> None:
        with self._changed:
            self._buffer.append(item)
            self._n_buffered_metrics += item.n_metrics if isinstance(item, _Line) else 0
            if self._n_buffered_metrics > MAX_METRICS_IN_MEMORY:
                self._drop_oldest_metrics()
            self._changed.notify_all()

    def _drop_oldest_metrics(self) -> None:
        """Drop a tenth of the bound at once, oldest first: scanning per record would cost the trainer's thread."""
        excess = self._n_buffered_metrics - MAX_METRICS_IN_MEMORY * 9 // 10
        kept: deque[_Line | Callable[[], list[Record]]] = deque()
        for item in self._buffer:
            if excess > 0 and isinstance(item, _Line) and item.n_metrics:
                excess -= item.n_metrics
                self._n_buffered_metrics -= item.n_metrics
                self.n_dropped_metrics += item.n_metrics
            else:
                kept.append(item)
        self._buffer = kept

    def _make_deferred(self) -> None:
        """Replace deferred work at its place in the buffer by the lines it makes."""
        with self._changed:
            work = [item for item in self._buffer if not isinstance(item, _Line)]
        made: dict[int, Sequence[_Line | Callable[[], list[Record]]]] = {}
        for item in work:
            try:
                made[id(item)] = [_line(record) for record in item()]
            except Exception as error:  # an unwritable or undecodable image costs that image, never the training
                self.n_bad_records += 1
                made[id(item)] = [_line({"type": "rejected", "reason": f"{type(error).__name__}: {error}"})]
        if made:
            with self._changed:
                self._buffer = deque(piece for item in self._buffer for piece in made.get(id(item), (item,)))

    def _forget(self, lines: list[_Line]) -> None:
        written = {id(line) for line in lines}
        with self._changed:
            self._buffer = deque(item for item in self._buffer if id(item) not in written)
            self._n_buffered_metrics = sum(i.n_metrics for i in self._buffer if isinstance(i, _Line))

    def _write(self, data: bytes) -> None:
        """Append `data` whole, or leave the file as it was and raise OSError."""
        if self._fd is None:
            self._fd = _open_for_append(self.path)
        start, view = os.fstat(self._fd).st_size, memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            os.close(self._fd)
            self._fd = None
            raise


def _line(record: Mapping[str, Any]) -> _Line:
    n_metrics = len(record.get("values", ())) if record.get("type") == "metrics" else 0
    return _Line((json.dumps(record, default=str) + "\n").encode(), n_metrics)


def _open_for_append(path: Path) -> int:
    """Open `path` for appending, cutting off a last line that a kill left without its newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        try:
            _truncate_torn_line(fd)
        except OSError:
            os.close(fd)
            raise
    return fd


def _truncate_torn_line(fd: int) -> None:
    end = position = os.fstat(fd).st_size
    while position > 0:
        start = max(0, position - 4096)
        newline = os.pread(fd, position - start, start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        os.ftruncate(fd, position)
