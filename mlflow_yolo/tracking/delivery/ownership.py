"""Which process owns a journal: a file lock that the kernel releases when the owner dies, however it dies."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.delivery.journal import journal_path, opening


def lock_of(journal: Path) -> FileLock:
    """Return the lock of `journal`, not acquired. Any thread may release it: the sender outlives the trainer."""
    return FileLock(str(journal.with_suffix(".lock")), thread_local=False)


def claim(journal: Path, *, timeout_s: float = 5.0) -> FileLock | None:
    """Take `journal` for this process.

    Returns:
        The held lock; None when the disk does not even take a lock file (the journal then lives in memory).

    Raises:
        WorkError: Another run, or a replay, is writing this journal.
    """
    lock = lock_of(journal)
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout_s)
    except Timeout:
        raise WorkError(
            f"{journal.parents[1]} is in use by another run or replay: wait for it to end or choose another directory"
        ) from None
    except OSError:
        return None
    return lock


def reclaim(journal: Path, lock: FileLock | None, *, uid: str) -> None:
    """Take the place of a journal that was deleted together with its lock, for the same run.

    Raises:
        OSError: The disk refuses, or another run has begun in the directory meanwhile.
    """
    journal.parent.mkdir(parents=True, exist_ok=True)
    if lock is not None:
        lock.release()
        lock.acquire(timeout=0)
    if (opening(journal) or {}).get("uid", uid) != uid:
        if lock is not None:
            lock.release()
        raise OSError(f"{journal.parents[1]} belongs to another run by now")


def is_owned(directory: Path) -> bool:
    """Return whether a living process is writing or sending the journal of the run in `directory`."""
    return is_locked(journal_path(directory))


def is_locked(journal: Path) -> bool:
    """Return whether a living process owns `journal`."""
    if not journal.with_suffix(".lock").exists():
        return False
    lock = lock_of(journal)
    with contextlib.suppress(OSError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False
