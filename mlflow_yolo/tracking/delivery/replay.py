"""Sending what a dead server, a kill or a full disk left in journals; as often as one likes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.tracking.delivery.interruption import append_end
from mlflow_yolo.tracking.delivery.journal import (
    Cursor,
    Record,
    count_pending,
    journal_path,
    opening,
    read_all,
    run_directory,
)
from mlflow_yolo.tracking.delivery.ownership import claim, is_locked
from mlflow_yolo.tracking.delivery.ownership import is_owned as is_owned
from mlflow_yolo.tracking.delivery.sender import Delivery, JournalSender
from mlflow_yolo.tracking.stores.addresses import answers
from mlflow_yolo.tracking.stores.client import ClientFactory, ServerSilent, Undeliverable, connect


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
    return parents_first(sorted(root.absolute().rglob("journal.jsonl")))


def parents_first(journals: Iterable[Path]) -> list[Path]:
    """Return those of `journals` that say which run they belong to, parents before their children."""
    found = {journal: opening(journal) for journal in journals}
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
    client_factory: ClientFactory = connect,
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
    replayer = Replayer(tracking_uri=tracking_uri, client_factory=client_factory, probe=probe)
    for journal in find_journals(root):
        replayer.replay(journal, end=interrupted)
    return replayer.result()


@dataclass
class Replayer:
    """Sends journals one after the other; an address that was silent once is not asked again.

    `stop` may be called by another thread; everything else by one.
    """

    tracking_uri: str | None = None
    client_factory: ClientFactory = connect
    probe: Callable[[str], bool] = answers
    _n_sent: int = 0
    _n_pending: int = 0
    _n_owned: int = 0
    _n_interrupted: int = 0
    _errors: dict[str, None] = field(default_factory=dict)
    _rejected: list[str] = field(default_factory=list)
    _answering: dict[str, bool] = field(default_factory=dict)
    _sender: JournalSender | None = None
    _stopped: bool = False

    def replay(self, journal: Path, *, end: bool = True) -> None:
        """Send what is pending in `journal` unless a living process owns it; with `end` close a run that was killed."""
        dead = end and not is_closed(journal)
        if self._stopped or (not dead and not _n_pending(journal)):
            return
        try:
            lock = claim(journal, timeout_s=0)
        except WorkError:
            self._n_owned += 1
            return
        try:
            if dead and not is_closed(journal):
                append_end(journal)
                self._n_interrupted += 1
            self._send(journal)
        finally:
            if lock is not None:
                lock.release()

    def stop(self) -> None:
        """End after the request that is being made; the rest stays pending."""
        self._stopped = True
        if self._sender is not None:
            self._sender.stop()

    def result(self) -> Replay:
        """Return what was done so far."""
        return Replay(
            self._n_sent,
            self._n_pending,
            self._n_owned,
            self._n_interrupted,
            tuple(self._errors),
            tuple(self._rejected),
        )

    def _send(self, journal: Path) -> None:
        sender = JournalSender(
            journal,
            tracking_uri=self.tracking_uri,
            client_factory=self.client_factory,
            probe=self._probe_once,
        )
        self._sender = sender
        if self._stopped:
            sender.stop()
        had_pending = sender.n_pending() > 0
        if reason := _send(sender, on_silence=self._note_silence):
            self._errors[reason] = None
        left = sender.n_pending()
        self._n_pending += left
        self._n_sent += had_pending and not left
        self._rejected += sender.rejected

    def _probe_once(self, uri: str) -> bool:
        if uri not in self._answering:
            self._answering[uri] = self.probe(uri)
        return self._answering[uri]

    def _note_silence(self, uri: str) -> None:
        self._answering[uri] = False


def close_interrupted(
    directory: Path,
    *,
    status: str = "KILLED",
    state: str | None = "interrupted",
    tracking_uri: str | None = None,
    client_factory: ClientFactory = connect,
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
            append_end(journal, status=status, state=state)
        sender = JournalSender(journal, tracking_uri=tracking_uri, client_factory=client_factory, probe=probe)
        reason = _send(sender)
        return Delivery(sender.n_pending(), reason, n_rejected=len(sender.rejected))
    finally:
        if lock is not None:
            lock.release()


def _send(sender: JournalSender, *, on_silence: Callable[[str], None] = lambda uri: None) -> str:
    """Send what is pending; return what is in the way, empty when nothing is."""
    try:
        sender.send_pending()
    except ServerSilent as error:
        on_silence(sender.address)
        return f"{error}; start it and replay again"
    except Undeliverable as error:
        return str(error)
    return ""


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
