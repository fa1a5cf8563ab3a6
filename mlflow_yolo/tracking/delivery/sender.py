"""Sending a journal to MLflow: from its cursor to its end, in order, as often as needed, each value once.

`Delivery` of a live run and `replay` of a left-over journal are the same code: both read the journal file. MLflow drops
a metric that it already holds with the same key, step, time and value, and runs are found by their uid, so a batch that
is sent twice (killed between the request and the cursor) changes nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo.tracking.delivery.journal import (
    FILE_TYPES,
    Cursor,
    Entry,
    Record,
    count_pending,
    is_archived,
    opening,
    parse_lines,
    read_all,
    read_entries,
    run_directory,
)
from mlflow_yolo.tracking.delivery.lookup import find_or_create_run
from mlflow_yolo.tracking.delivery.run_file import note_run_id
from mlflow_yolo.tracking.delivery.server import ServerRun
from mlflow_yolo.tracking.stores.addresses import absolute, answers, redact, responds, with_password, without_password
from mlflow_yolo.tracking.stores.client import ClientFactory, ServerSilent, Undeliverable, connect, undeliverable

MAX_METRICS_PER_REQUEST = 1000
_VALUE_TYPES = frozenset({"metrics", "params", "tags"})


@dataclass(frozen=True)
class Delivery:
    """What has become of a run's records.

    Attributes:
        n_pending: Records that are journaled but not at the server.
        reason: Why, in one line; also says what was dropped or rejected. Empty when all went well.
        n_dropped_metrics: Values lost because neither disk nor server could take them.
        n_rejected: Entries that the server refused for good.
    """

    n_pending: int
    reason: str = ""
    n_dropped_metrics: int = 0
    n_rejected: int = 0


class JournalSender:
    """Sends one journal. Not thread-safe: one thread at a time calls `send_pending`.

    Args:
        journal: The journal's path.
        tracking_uri: Where to send; default the URI in the journal, with the password of the environment.
        client_factory: Makes the MLflow client of a URI.
        probe: Says quickly whether anybody listens at a URI; asked before every round of requests.
    """

    def __init__(
        self,
        journal: Path,
        *,
        tracking_uri: str | None = None,
        client_factory: ClientFactory = connect,
        probe: Callable[[str], bool] = answers,
    ) -> None:
        self.journal = journal
        self.cursor = Cursor.load(journal)
        self.run: ServerRun | None = None
        self._uri = None if tracking_uri is None else absolute(tracking_uri)
        self._client_factory = client_factory
        self._probe = probe
        self._opening: Record | None = None
        self._heard_at = time.monotonic()
        self._stopped = False

    @property
    def run_id(self) -> str | None:
        """The server's id of the run, None until the server has been asked."""
        return self.run.run_id if self.run else self.cursor.run_id

    @property
    def rejected(self) -> list[str]:
        """What the server refused for good, one line each."""
        return self.run.rejected if self.run else []

    def n_pending(self) -> int:
        """Return how many records of the journal file are not at the server."""
        if self._is_replaced():
            return 0
        return count_pending(read_all(self.journal, min(self.cursor.values, self.cursor.files)), self.cursor)

    def send_pending(self, *, tail: bytes = b"") -> None:
        """Send everything after the cursor, then `tail`: lines that the disk did not take.

        Raises:
            Undeliverable: Something has to wait; what was sent is acknowledged in the cursor.
        """
        pending = self._read(min(self.cursor.values, self.cursor.files))
        unwritten = list(parse_lines(tail))
        if not pending and not unwritten:
            return
        self._heard_at = time.monotonic()
        run = self._server_run(unwritten)
        while entries := self._read(self.cursor.values):
            self._send_values(run, entries)
        failure = self._try_files(run)
        if unwritten:
            self._send_tail(run, unwritten)
        if failure is not None:
            raise failure

    def _read(self, offset: int, *, types: frozenset[str] | None = None) -> list[Entry]:
        return [] if self._is_replaced() else read_entries(self.journal, offset, types=types)

    def _is_replaced(self) -> bool:
        """Return whether the journal was deleted and another run has begun its own in the same place."""
        if self._opening is None:
            return False
        return bool((opening(self.journal) or self._opening)["uid"] != self._opening["uid"])

    def _save_cursor(self) -> None:
        if not self._is_replaced():
            self.cursor.save(self.journal)

    def _server_run(self, unwritten: Sequence[Entry]) -> ServerRun:
        """Return the run at the server, found or created on first use."""
        if self._opening is None:
            self._opening = opening(self.journal) or next(
                (e.record for e in unwritten if e.record.get("type") == "open"), None
            )
            if self._opening is None:
                raise Undeliverable(f"{self.journal} does not say which run it belongs to: delete it")
        if silence := self.silence():
            raise ServerSilent(silence)
        if self.run is None:
            self.run = self._connect(self.address, self._opening)
        return self.run

    def silence(self) -> str:
        """Return that nobody listens at the tracking URI, empty where somebody does."""
        uri = self.address
        return "" if self._probe(uri) else f"{redact(uri)} does not answer"

    def lost(self, patience_s: float) -> str:
        """Return that a request will not be answered any more, empty while there is hope; any thread may ask.

        A server that has answered anything within `patience_s` is slow; one that has not, and does not say a word to a
        new connection either, is gone.
        """
        if time.monotonic() - self._heard_at < patience_s or self._opening is None:
            return ""
        uri = self.address
        return "" if self._probe(uri) and responds(uri) else f"{redact(uri)} does not answer"

    def stop(self) -> None:
        """Let `send_pending`, which another thread is in, end after its current request."""
        self._stopped = True

    @property
    def address(self) -> str:
        """Where it is sent, with the password: not to be shown. Known once sending was tried."""
        if self._uri is not None:
            return self._uri
        assert self._opening is not None
        return with_password(self._opening["tracking_uri"])

    def _connect(self, uri: str, record: Record) -> ServerRun:
        try:
            client = self._client_factory(uri)
        except Exception as error:
            raise undeliverable(error) from error
        stored = without_password(uri)
        if self.cursor.run_id and self.cursor.tracking_uri == stored:
            return ServerRun(client, self.cursor.run_id)
        run = find_or_create_run(client, {**record, "tracking_uri": stored})
        known = self.cursor.run_id == run.run_id  # the same store under another name
        self.cursor = (self.cursor if known else Cursor()).moved(tracking_uri=stored, run_id=run.run_id)
        self._save_cursor()
        if not is_archived(self.journal):
            note_run_id(run_directory(self.journal), uid=record["uid"], run_id=run.run_id)
        return run

    def _send_values(self, run: ServerRun, entries: Sequence[Entry]) -> None:
        """Send metrics, params and tags in batches; other records end a batch and are handled by themselves."""
        batch: list[Entry] = []
        n_metrics = 0
        for entry in entries:
            kind = entry.record.get("type")
            n_more = len(entry.record["values"]) if kind == "metrics" else 0
            is_value = kind in _VALUE_TYPES or kind in FILE_TYPES
            if not is_value or n_metrics + n_more > MAX_METRICS_PER_REQUEST:
                self._send_batch(run, batch)
                batch, n_metrics = [], 0
            if is_value:
                batch.append(entry)
                n_metrics += n_more
            elif entry.end > self.cursor.values:
                self._handle(run, entry.record)
                self._acknowledge(values=entry.end)
        self._send_batch(run, batch)

    def _send_batch(self, run: ServerRun, batch: Sequence[Entry]) -> None:
        if batch:
            run.send([entry.record for entry in batch if entry.record["type"] in _VALUE_TYPES])
            self._acknowledge(values=batch[-1].end)

    def _handle(self, run: ServerRun, record: Record) -> None:
        kind = record.get("type")
        if kind == "open" and record.get("resumed"):
            run.reopen()
        elif kind == "dataset":
            run.send_dataset(record)
        elif kind == "rejected":
            run.reject(record["reason"])
        elif kind == "close":
            self._try_files(run)  # files first where possible: who waits for FINISHED expects them
            run.finish(record)

    def _try_files(self, run: ServerRun) -> Undeliverable | None:
        """Upload the files up to the end; return what stopped it, so that values go on."""
        while entries := self._read(self.cursor.files, types=FILE_TYPES):
            for entry in entries:
                if entry.record.get("type") in FILE_TYPES:
                    try:
                        self._send_file(run, entry.record)
                    except Undeliverable as failure:
                        return failure
                    self._acknowledge(files=entry.end)
            self._acknowledge(files=entries[-1].end)
        return None

    def _send_file(self, run: ServerRun, record: Record) -> None:
        path = run_directory(self.journal) / record["path"]
        if is_archived(self.journal) and path.is_file() and path.stat().st_mtime > self.journal.stat().st_mtime + 2:
            run.reject(f"file {record['path']}: overwritten by a later run in the same directory")
        else:
            run.send_file(path, record["artifact_path"])

    def _send_tail(self, run: ServerRun, entries: Sequence[Entry]) -> None:
        run.send([entry.record for entry in entries if entry.record.get("type") in _VALUE_TYPES])
        for entry in entries:
            if entry.record.get("type") in FILE_TYPES:
                self._send_file(run, entry.record)
        for entry in entries:
            self._handle(run, entry.record)

    def _acknowledge(self, **position: int) -> None:
        self._heard_at = time.monotonic()
        moved = self.cursor.moved(**position)
        if moved != self.cursor:
            self.cursor = moved
            self.cursor.save(self.journal)
        if self._stopped:
            raise Undeliverable("sending was stopped")
