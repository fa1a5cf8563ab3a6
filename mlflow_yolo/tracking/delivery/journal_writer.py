"""The thread that writes a run's journal, and the buffers between it and the trainer.

The trainer's thread only appends to a queue. The writer thread makes lines of what is queued and appends them to the
file a quarter of a second later, so a `kill -9` loses less than one second and nobody waits for the disk. While the
disk refuses, lines stay in memory (the oldest metrics beyond a bound are dropped and counted) and writing is tried
again; so it is with images and texts, whose files go to the same disk. All intervals are measured on the monotonic
clock. A journal that is deleted or moved away while it is written (say by a script that clears the training's
directory) is put back as it was.
"""

import atexit
import contextlib
import errno
import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mlflow_yolo.tracking.delivery.journal import Record

WRITE_INTERVAL_S = 0.25
RETRY_INTERVAL_S = 1.0
MAX_METRICS_IN_MEMORY = 200_000
MAX_WORK_IN_MEMORY = 100
"""Images and texts that wait for a full disk; 1 MB each where an image has 640 pixels."""

_WRITE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 14
_EXIT_TIMEOUT_S = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Maker = Callable[[], Iterable[Record]]


@dataclass(frozen=True)
class _Line:
    data: bytes
    n_metrics: int


class JournalWriter:
    """Two queues, the lines made of them, and the thread that moves those to disk. No method raises for disk trouble.

    Records are written in the order they were appended. Slow work (`append_later`) has a queue of its own: values
    measured while twenty images are encoded do not wait for them.

    Args:
        path: The journal.
        reclaim: Called before a journal that is gone is put back; raises OSError where the place is somebody else's.

    Attributes:
        error: Why the disk refused the last write, empty while it accepts.
        refusal: Why it refused last, also when it accepts again.
        n_dropped_metrics: Values that fitted neither on disk nor in memory.
        n_bad_records: Queued work whose records could not be made.
    """

    def __init__(self, path: Path, *, reclaim: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.error = ""
        self.refusal = ""
        self.n_dropped_metrics = 0
        self.n_bad_records = 0
        self._pid = os.getpid()
        self._file = AppendOnlyFile(path, reclaim=reclaim)
        self._queue: deque[Mapping[str, Any] | Maker] = deque()
        self._slow_queue: deque[Maker] = deque()
        self._lines: list[_Line] = []
        self._n_metrics = 0  # in `_lines`
        self._n_encoded_bytes = 0  # since other threads were let run
        self._closing = False
        self._attempts = 0
        self._writing = threading.Lock()
        self._attempted = threading.Condition()
        self._something = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-yolo-journal", daemon=True)
        atexit.register(self.write_now)
        self._thread.start()

    def append(self, record: "Mapping[str, Any] | Maker") -> None:
        """Queue a record, or what makes records: no I/O, no lock, no waiting. The caller must not change it any more.

        What a forked child appends is ignored: it does not own the journal.
        """
        self._put(self._queue, record)

    def append_later(self, make: Maker) -> None:
        """Queue work that may take long (encoding an image): it is done in order, but after everything in `append`."""
        self._put(self._slow_queue, make)

    def flush(self, timeout_s: float) -> bool:
        """Write now; return whether everything reached the disk. Returns early when the disk refuses."""
        deadline = time.monotonic() + timeout_s
        with self._attempted:
            before = self._attempts
            while self.n_unwritten() and self._thread.is_alive():
                self._hurry.set()
                self._something.set()
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or (self.error and self._attempts > before):
                    break
                self._attempted.wait(min(remaining_s, 0.1))
        return not self.n_unwritten()

    def close(self, timeout_s: float) -> bytes:
        """Flush, end the thread, and return the lines that could not be written (empty if all is on disk)."""
        self.flush(timeout_s)
        self._closing = True
        self._hurry.set()
        self._something.set()
        self._thread.join(max(0.1, timeout_s))
        if not self.n_unwritten():
            atexit.unregister(self.write_now)
        return b"".join(line.data for line in list(self._lines))

    def n_unwritten(self) -> int:
        """Return how many records (or calls that make some) are still in memory only."""
        return len(self._queue) + len(self._slow_queue) + len(self._lines)

    def write_now(self) -> None:
        """Write what is queued from the calling thread; also run at interpreter exit, when nobody called `close`."""
        if os.getpid() != self._pid or not self._writing.acquire(timeout=_EXIT_TIMEOUT_S):
            return
        try:
            self._write_queued()
        finally:
            self._writing.release()
            with self._attempted:
                self._attempts += 1
                self._attempted.notify_all()

    def _run(self) -> None:
        while True:
            self._something.wait()
            self._hurry.wait(RETRY_INTERVAL_S if self.error else WRITE_INTERVAL_S)
            self._hurry.clear()
            self._something.clear()
            self.write_now()
            if self._closing:
                break
            if self.n_unwritten():
                self._something.set()
        self._file.close()

    def _put(self, queue: "deque[Any]", item: Any) -> None:
        if os.getpid() != self._pid:
            return
        queue.append(item)
        if not self._something.is_set():
            self._something.set()

    def _write_queued(self) -> None:
        """Empty both queues, writing after every megabyte and before all slow work; a full disk leaves the slow one."""
        written = self._write_lines()  # lines left from before
        while self._queue or self._slow_queue:
            n_bytes = 0
            while self._queue and n_bytes < _WRITE_BYTES:
                n_bytes += self._take(self._queue)
            if not n_bytes and self._slow_queue and not self._take(self._slow_queue):
                break
            # A disk that has just refused is not asked again for every megabyte.
            written = written and self._write_lines()

    def _take(self, queue: "deque[Any]") -> int:
        """Make lines of the first item of `queue` and return their size; it counts as queued until they are made.

        Returns 0 where the disk is full: the item then waits in the slow queue.
        """
        n_bytes = 1
        try:
            for record in _records(queue[0]):
                n_bytes += self._add(record)
        except Exception as error:  # an unwritable or undecodable image costs that image, never the training
            if self._may_wait(error):
                self.error = self.refusal = f"{error.strerror}: {self.path.parent}"
                if queue is not self._slow_queue:
                    self._slow_queue.append(queue.popleft())
                return 0
            self.n_bad_records += 1
            n_bytes += self._add({"type": "rejected", "reason": f"{type(error).__name__}: {error}"})
        queue.popleft()
        if self._n_metrics > MAX_METRICS_IN_MEMORY:
            self._drop_oldest_metrics()
        return n_bytes

    def _may_wait(self, error: Exception) -> TypeGuard[OSError]:
        """Return whether work that failed so is to be tried again."""
        is_full = isinstance(error, OSError) and error.errno in _FULL
        return is_full and not self._closing and len(self._slow_queue) <= MAX_WORK_IN_MEMORY

    def _add(self, record: Mapping[str, Any]) -> int:
        """Add the line of a record and return its size."""
        line = _line(record)
        self._lines.append(line)
        self._n_metrics += line.n_metrics
        self._let_others_run(len(line.data))
        return len(line.data)

    def _let_others_run(self, n_bytes: int) -> None:
        """Give the interpreter away after every 16 kB: a thread that only computes keeps it for 5 ms at a time."""
        self._n_encoded_bytes += n_bytes
        if self._n_encoded_bytes > _PIECE_BYTES:
            self._n_encoded_bytes = 0
            time.sleep(0)

    def _write_lines(self) -> bool:
        """Write the lines; return whether the disk took them."""
        try:
            if self._lines:
                self._file.append(b"".join(line.data for line in self._lines))
        except OSError as error:
            self.error = self.refusal = f"{error.strerror or error}: {self.path}"
            return False
        self.error = ""
        self._lines, self._n_metrics = [], 0
        return True

    def _drop_oldest_metrics(self) -> None:
        """Drop a tenth of the bound at once, so that this is rarely done."""
        excess = self._n_metrics - MAX_METRICS_IN_MEMORY * 9 // 10
        kept = []
        for line in self._lines:
            if excess > 0 and line.n_metrics:
                excess -= line.n_metrics
                self._n_metrics -= line.n_metrics
                self.n_dropped_metrics += line.n_metrics
            else:
                kept.append(line)
        self._lines = kept


class AppendOnlyFile:
    """A file that is only appended to, each time wholly or not at all. Opened by the first `append`.

    Args:
        path: Where it lies; put back there with all its content when it was deleted or moved away.
        reclaim: Called before it is put back; raises OSError where it must not be.
    """

    def __init__(self, path: Path, *, reclaim: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._reclaim = reclaim
        self._fd: int | None = None

    def append(self, data: bytes) -> None:
        """Append `data` whole, or leave the file as it was.

        Raises:
            OSError: The disk refuses.
        """
        if self._fd is None:
            self._fd = _open_for_append(self._path)
        elif not _lies_at(self._path, self._fd):
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._reclaim()
                _put_back(self._path, self._fd)
            self.close()
            self._fd = _open_for_append(self._path)
        start, view = os.fstat(self._fd).st_size, memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            raise

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _records(item: "Mapping[str, Any] | Maker") -> Iterable[Mapping[str, Any]]:
    return item() if callable(item) else (item,)


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


def _lies_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _put_back(path: Path, fd: int) -> None:
    """Write the content of an open file to `path`; who reads there sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as copy:
            while piece := os.pread(fd, _WRITE_BYTES, copy.tell()):
                copy.write(piece)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
