"""What killed runs left behind is delivered by the next run that starts beside them.

A run that opens looks into the directories next to its own (`runs/detect/train`, `train2`, …) for journals that are
not delivered or not closed, and whose process is gone. If there are any, one daemon thread sends them and closes their
runs as KILLED (`interrupted`) while the new run goes on; it ends with the new run at the latest. A run of a study is
sent but not closed: only its study knows whether it had a result.
"""

import heapq
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.interruption import STATISTICS, this_host
from mlflow_yolo.tracking.delivery.journal import is_delivered, journal_path, opening, run_directory
from mlflow_yolo.tracking.delivery.ownership import is_locked
from mlflow_yolo.tracking.delivery.replay import Replayer, parents_first
from mlflow_yolo.tracking.stores.addresses import answers
from mlflow_yolo.tracking.stores.client import ClientFactory, connect

MAX_DIRECTORIES = 200
"""Neighbours looked at, newest first: 20 ms. `mlflow-yolo replay` looks at all, at any depth."""

_END_S = 1.0


class LeftOverRuns:
    """Delivers what is left in the neighbourhood of a run's directory.

    Args:
        directory: The directory of the run that starts; its own journal must be locked already.
        client_factory: Makes the MLflow client of a URI.
        probe: Says quickly whether anybody answers at a URI.
    """

    def __init__(
        self, directory: Path, *, client_factory: ClientFactory = connect, probe: Callable[[str], bool] = answers
    ) -> None:
        self._replayer = Replayer(client_factory=client_factory, probe=probe)
        self._journals = find_left_over(directory)
        self._thread: threading.Thread | None = None
        if self._journals:
            self._import_what_is_needed()
            self._thread = threading.Thread(target=self._run, name="mlflow-yolo-recovery", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the thread finish, for a second; then end it after the request it is in."""
        if self._thread is not None:
            self._thread.join(_END_S)
            self._replayer.stop()
            self._thread.join(_END_S)

    def _import_what_is_needed(self) -> None:
        """Import here what the thread would import: see `client.load_mlflow` for what goes wrong otherwise."""
        if any((run_directory(journal) / STATISTICS).is_dir() for journal in self._journals):
            import mlflow_yolo.figures.statistics_report
            import mlflow_yolo.statistics.storage  # noqa: F401

    def _run(self) -> None:
        for journal in parents_first(self._journals):
            record = opening(journal) or {}
            self._replayer.replay(journal, end=keys.TAG_STUDY not in record.get("tags", {}))


def find_left_over(directory: Path) -> list[Path]:
    """Return the journals in and beside `directory` that killed processes of this machine left undelivered or open."""
    return [journal for journal in _journals(directory) if not is_delivered(journal) and _is_abandoned(journal)]


def _journals(directory: Path) -> Iterator[Path]:
    """Yield the journals of the neighbours' runs, and of earlier runs in their directories and in `directory`."""
    for neighbour in dict.fromkeys([directory, *_neighbours(directory)]):
        journal = journal_path(neighbour)
        if journal.parent.is_dir():
            yield journal
            yield from sorted(journal.parent.glob("earlier/*/journal.jsonl"))


def _neighbours(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory.parent) as entries:
            found = [(entry.stat().st_mtime, entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return [Path(path) for _, path in heapq.nlargest(MAX_DIRECTORIES, found)]


def _is_abandoned(journal: Path) -> bool:
    record = opening(journal)
    return record is not None and record.get("host", this_host()) == this_host() and not is_locked(journal)
