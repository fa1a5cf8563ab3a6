"""Sending what a dead server, a kill or a full disk left in journals; as often as one likes."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.tracking import server
from mlflow_yolo.tracking.addresses import answers
from mlflow_yolo.tracking.journal import (
    Cursor,
    JournalWriter,
    Record,
    count_pending,
    journal_path,
    opening,
    read_all,
    run_directory,
)
from mlflow_yolo.tracking.ownership import claim, is_locked
from mlflow_yolo.tracking.ownership import is_owned as is_owned
from mlflow_yolo.tracking.sender import Delivery, JournalSender, ServerSilent
from mlflow_yolo.tracking.server import ClientFactory, Undeliverable


@dataclass(frozen=True)
class Replay:
    """What a replay did.

    Attributes:
        n_sent_runs: Runs that had something pending and are now complete at the server.
        n_pending: Records that could still not be delivered.
        n_owned: Journals left alone because a living process is sending them.
        n_interrupted: Runs that were closed as KILLED because their process had died.
        errors: What is in the way, one line per reason.
        rejected: What the server refused for good, one line each.
    """

    n_sent_runs: int
    n_pending: int
    n_owned: int = 0
    n_interrupted: int = 0
    errors: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what happened, one line per fact."""
        lines = [f"{self.n_sent_runs} runs completed at the server, {self.n_pending} records pending"]
        if self.n_interrupted:
            lines.append(f"{self.n_interrupted} interrupted runs closed as KILLED")
        if self.n_owned:
            lines.append(f"{self.n_owned} runs left alone: their processes are alive")
        lines += [f"pending because {error}" for error in self.errors]
        lines += [f"refused by the server: {reason}" for reason in self.rejected]
        return "\n".join(lines)


def find_journals(root: Path) -> list[Path]:
    """Return every journal at or below `root`, parents before their children.

    Raises:
        ArgumentError: `root` is no directory.
    """
    if not root.is_dir():
        raise ArgumentError(f"{root} is not a directory: give the run's or the study's directory, for example runs")
    found = {journal: opening(journal) for journal in sorted(root.absolute().rglob("journal.jsonl"))}
    opened = {journal: record for journal, record in found.items() if record is not None}
    by_uid = {record["uid"]: record for record in opened.values()}
    return sorted(opened, key=lambda journal: _depth(opened[journal], by_uid))


def pending_journals(root: Path) -> list[Path]:
    """Return the journals at or below `root` that hold records the server has not been given, or no end."""
    return [j for j in find_journals(root) if not is_locked(j) and (_n_pending(j) or not is_closed(j))]


def is_closed(journal: Path) -> bool:
    """Return whether the last run in `journal` was ended by its own process."""
    return closing_status(journal) is not None


def closing_status(journal: Path) -> str | None:
    """Return the status that the last run in `journal` was ended with, None where it was not ended."""
    last: Record = {}
    for entry in read_all(journal):
        if entry.record.get("type") in ("open", "close"):
            last = entry.record
    return str(last["status"]) if last.get("type") == "close" else None


def replay(
    root: Path,
    *,
    tracking_uri: str | None = None,
    interrupted: bool = True,
    client_factory: ClientFactory = server.connect,
    probe: Callable[[str], bool] = answers,
) -> Replay:
    """Send every pending journal below `root` that no living process owns.

    Args:
        root: A run's directory or any directory above.
        tracking_uri: Where to send instead of the URI in the journals.
        interrupted: Also close runs whose process died, as KILLED (`interrupted`) at the time of their last record.
        client_factory: Makes the MLflow client of a URI.
        probe: Says quickly whether anybody answers at a URI.

    Raises:
        ArgumentError: `root` is no directory.
    """
    n_sent = n_pending = n_owned = n_interrupted = 0
    errors: dict[str, None] = {}
    rejected: list[str] = []
    silent: dict[str, bool] = {}

    def probe_once(uri: str) -> bool:
        if uri not in silent:
            silent[uri] = probe(uri)
        return silent[uri]

    for journal in find_journals(root):
        dead = interrupted and not is_closed(journal)
        if not dead and not _n_pending(journal):
            continue
        try:
            lock = claim(journal, timeout_s=0)
        except WorkError:
            n_owned += 1
            continue
        try:
            if dead and not is_closed(journal):
                _append_end(journal, status="KILLED", state="interrupted")
                n_interrupted += 1
            sender = JournalSender(journal, tracking_uri=tracking_uri, client_factory=client_factory, probe=probe_once)
            had_pending = sender.n_pending() > 0
            if reason := _send(sender):
                errors[reason] = None
            left = sender.n_pending()
            n_pending += left
            n_sent += had_pending and not left
            rejected += sender.rejected
        finally:
            if lock is not None:
                lock.release()
    return Replay(n_sent, n_pending, n_owned, n_interrupted, tuple(errors), tuple(rejected))


def close_interrupted(
    directory: Path,
    *,
    status: str = "KILLED",
    state: str | None = "interrupted",
    tracking_uri: str | None = None,
    client_factory: ClientFactory = server.connect,
    probe: Callable[[str], bool] = answers,
) -> Delivery | None:
    """Close the run in `directory` if its process died before it could, and send what it left.

    Args:
        directory: The run's directory.
        status: How it ended; a status that the server already knows to be final is kept.
        state: Why, as tag; None for no tag.
        tracking_uri: Where to send instead of the URI in the journal.
        client_factory: Makes the MLflow client of a URI.
        probe: Says quickly whether anybody answers at a URI.

    Returns:
        What became of its records; None if the run is alive or never reached the disk.
    """
    journal = journal_path(directory.absolute())
    if opening(journal) is None:
        return None
    try:
        lock = claim(journal, timeout_s=0)
    except WorkError:
        return None
    try:
        if not is_closed(journal):
            _append_end(journal, status=status, state=state)
        sender = JournalSender(journal, tracking_uri=tracking_uri, client_factory=client_factory, probe=probe)
        reason = _send(sender)
        return Delivery(sender.n_pending(), reason, n_rejected=len(sender.rejected))
    finally:
        if lock is not None:
            lock.release()


def _send(sender: JournalSender) -> str:
    try:
        sender.send_pending()
    except ServerSilent as error:
        return f"{error}; start it and replay again"
    except Undeliverable as error:
        return str(error)
    return ""


def _append_end(journal: Path, *, status: str, state: str | None) -> None:
    """Append the end that a killed process could not write. Only if the server does not know a better one."""
    last_ms, adopted = 0, False
    for entry in read_all(journal):
        last_ms = max(last_ms, int(entry.record.get("t", 0)))
        if entry.record.get("type") == "open":
            adopted = bool(entry.record.get("run_id"))
    writer = JournalWriter(journal)
    writer.append(
        {
            "type": "close",
            "t": last_ms or int(time.time() * 1000),
            "status": status,
            "state": state,
            "terminate": not adopted,
            "only_if_running": True,
        }
    )
    writer.close(timeout_s=5.0)


def _n_pending(journal: Path) -> int:
    cursor = Cursor.load(journal)
    return count_pending(read_all(journal, min(cursor.values, cursor.files)), cursor)


def _depth(record: Record, by_uid: dict[str, Record]) -> int:
    """Return how many known ancestors a run has; a loop, which only a forged journal holds, ends the count."""
    depth, seen = 0, {record["uid"]}
    while (parent := record.get("parent_uid")) in by_uid and parent not in seen:
        record, depth = by_uid[parent], depth + 1
        seen.add(parent)
    return depth


def directories(journals: Iterable[Path]) -> list[Path]:
    """Return the run directories of `journals`, each once."""
    return list(dict.fromkeys(run_directory(journal) for journal in journals))
