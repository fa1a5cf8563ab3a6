"""The thread that writes a run's journal, and the buffers between it and the trainer.

The trainer's thread only appends to a queue. The writer thread makes lines of what is queued and appends them to the
file a quarter of a second later, so a `kill -9` loses less than one second and nobody waits for the disk. While the
disk refuses, lines stay in memory (the oldest metrics beyond a bound are dropped and counted) and writing is tried
again. All intervals are measured on the monotonic clock. A journal that is deleted while it is written (say by a script
that clears the training's directory) is begun anew, with the record that says which run it belongs to.
"""

import atexit
import contextlib
import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.tracking.journal import Record

WRITE_INTERVAL_S = 0.25
RETRY_INTERVAL_S = 1.0
MAX_METRICS_IN_MEMORY = 200_000
_WRITE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 14
_EXIT_TIMEOUT_S = 5.0

Maker = Callable[[], Iterable[Record]]


@dataclass(frozen=True)
class _Line:
    data: bytes
    n_metrics: int


class JournalWriter:
    """Two queues, the lines made of them, and the thread that moves those to disk. No method raises for disk trouble.

    Records are written in the order they were appended. Slow work (`append_later`) has a queue of its own: values
    measured while twenty images are encoded do not wait for them.

    Attributes:
        error: Why the disk refused the last write, empty while it accepts.
        refusal: Why it refused last, also when it accepts again.
        n_dropped_metrics: Values that fitted neither on disk nor in memory.
        n_bad_records: Queued work whose records could not be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error = ""
        self.refusal = ""
        self.n_dropped_metrics = 0
        self.n_bad_records = 0
        self._pid = os.getpid()
        self._file = AppendOnlyFile(path)
        self._queue: deque[Mapping[str, Any] | Maker] = deque()
        self._slow_queue: deque[Maker] = deque()
        self._lines: list[_Line] = []
        self._opening: Record = {}
        self._n_begun = 0
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
        if not self._opening and isinstance(item, Mapping) and item.get("type") == "open":
            self._opening = dict(item)
        queue.append(item)
        if not self._something.is_set():
            self._something.set()

    def _write_queued(self) -> None:
        """Empty both queues, writing after every megabyte and before all slow work."""
        written = self._write_lines()  # lines left from before
        while self._queue or self._slow_queue:
            n_bytes = 0
            while self._queue and n_bytes < _WRITE_BYTES:
                n_bytes += self._take(self._queue)
            if not n_bytes and self._slow_queue:
                self._take(self._slow_queue)
            # A disk that has just refused is not asked again for every megabyte.
            written = written and self._write_lines()

    def _take(self, queue: "deque[Any]") -> int:
        """Make lines of the first item of `queue` and return their size; it counts as queued until they are made."""
        n_bytes = 1
        for line in _make_lines(queue[0], self._note_bad):
            self._lines.append(line)
            self._n_metrics += line.n_metrics
            n_bytes += len(line.data)
            self._let_others_run(len(line.data))
        queue.popleft()
        if self._n_metrics > MAX_METRICS_IN_MEMORY:
            self._drop_oldest_metrics()
        return n_bytes

    def _let_others_run(self, n_bytes: int) -> None:
        """Give the interpreter away after every 16 kB: a thread that only computes keeps it for 5 ms at a time."""
        self._n_encoded_bytes += n_bytes
        if self._n_encoded_bytes > _PIECE_BYTES:
            self._n_encoded_bytes = 0
            time.sleep(0)

    def _note_bad(self) -> None:
        self.n_bad_records += 1

    def _write_lines(self) -> bool:
        """Write the lines; return whether the disk took them."""
        try:
            if self._lines:
                data = b"".join(line.data for line in self._lines)
                self._file.append(self._begin_anew() + data if self._file.is_deleted() else data)
        except OSError as error:
            self.error = self.refusal = f"{error.strerror or error}: {self.path}"
            return False
        self.error = ""
        self._lines, self._n_metrics = [], 0
        return True

    def _begin_anew(self) -> bytes:
        """Return the first line of a journal in place of one that was deleted, told from it by the count in `begun`."""
        self._n_begun += 1
        return _line({**self._opening, "begun": self._n_begun}).data

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
    """A file that is only appended to, each time wholly or not at all. Opened by the first `append`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def is_deleted(self) -> bool:
        """Return whether the file that was opened has no name any more; the next `append` then begins a new one."""
        return self._fd is not None and os.fstat(self._fd).st_nlink == 0

    def append(self, data: bytes) -> None:
        """Append `data` whole, or leave the file as it was.

        Raises:
            OSError: The disk refuses.
        """
        if self.is_deleted():
            self.close()
        if self._fd is None:
            self._fd = _open_for_append(self._path)
        start, view = os.fstat(self._fd).st_size, memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            self.close()
            raise

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _make_lines(item: "Mapping[str, Any] | Maker", note_bad: Callable[[], None]) -> Iterator[_Line]:
    """Yield the lines of a queued item; what cannot be made is said in one."""
    try:
        for record in item() if callable(item) else (item,):
            yield _line(record)
    except Exception as error:  # an unwritable or undecodable image costs that image, never the training
        note_bad()
        yield _line({"type": "rejected", "reason": f"{type(error).__name__}: {error}"})


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
