"""Which processes of this machine work at the same time: many that train, or one that measures times, never both.

Two files in the folder for temporary files are locked (`flock`), so the kernel takes a lock back however its holder
ends. Those who train share the `room`. Whoever wants in goes through the `turnstile` first; who measures stays in it
until the room is empty and the measurement done, so that nobody can enter before him. Those who train look at the
turnstile between two batches and leave the room while it is taken: a measurement waits for a batch and not for a
training, and no stream of trainings can keep it waiting.

Source: the turnstile of the readers-writers problem, Downey, The Little Book of Semaphores (2008), section 4.2.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FILES = ("mlflow-yolo-turnstile.lock", "mlflow-yolo-room.lock")
_POLL_S = 0.02

SHARED, EXCLUSIVE = False, True


class Machine:
    """This process' place among those that train and measure on the same machine.

    Locks that cannot be had are said once, and change nothing else. To be used by one thread.

    Args:
        note: Told in a sentence what could not be had.
        directory: Where the files lie, the same for all processes; None for the folder for temporary files.
        patience_s: How long the others are waited for: one of them may hang.
    """

    def __init__(
        self, note: Callable[[str], object], *, directory: Path | None = None, patience_s: float = 900.0
    ) -> None:
        self._note = note
        self._patience_s = patience_s
        self._inside = False
        self._files: tuple[int, ...] = ()
        try:
            folder = directory or Path(tempfile.gettempdir())
            files = tuple(_open(folder / name) for name in _FILES)
            _try_lock(files[0], SHARED)
            _unlock(files[0])
            self._files = files
        except (OSError, ImportError) as error:
            self._note(f"latency may be measured beside other trials: {error}")

    def enter(self) -> None:
        """Join those who train, as soon as nobody measures."""
        if not self._files or self._inside:
            return
        turnstile, room = self._files
        try:
            self._inside = self._lock(turnstile, EXCLUSIVE) and self._lock(room, SHARED)
        finally:
            _unlock(turnstile)

    def give_way(self) -> None:
        """Wait outside while somebody measures, or wants to; costs microseconds where nobody does."""
        if not self._inside:
            return
        turnstile = self._files[0]
        if _try_lock(turnstile, SHARED):
            _unlock(turnstile)
        else:
            self.leave()
            self.enter()

    def leave(self) -> None:
        """Be no longer among those who train."""
        if self._inside:
            _unlock(self._files[1])
            self._inside = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one for a while; afterwards a process that was among those who train is so again."""
        was_inside = self._inside
        self.leave()
        try:
            if self._files and not all(self._lock(file, EXCLUSIVE) for file in self._files):
                self._note(f"latency was measured beside others, who did not stop within {self._patience_s:g} s")
            yield
        finally:
            for file in self._files:
                _unlock(file)
            if was_inside:
                self.enter()

    def close(self) -> None:
        """Leave for good."""
        self.leave()  # a process that was forked from this one has the file open, too
        for file in self._files:
            os.close(file)
        self._files, self._inside = (), False

    def _lock(self, file: int, exclusive: bool) -> bool:
        """Return whether a lock was had before patience ran out."""
        deadline = time.monotonic() + self._patience_s
        while not _try_lock(file, exclusive):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _open(path: Path) -> int:
    """Return a descriptor of a file that every user of the machine may lock; nobody writes to it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)  # creating another user's file is refused in such a folder
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        os.fchmod(file, 0o644)  # whatever the mask says
        return file


def _try_lock(file: int, exclusive: bool) -> bool:
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)
