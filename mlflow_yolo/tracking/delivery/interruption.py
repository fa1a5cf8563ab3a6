"""The end that a killed process could not write: its statistics put together, its run closed at its last record.

A run that this package opened is closed as KILLED. One that was adopted belongs to somebody else: it is closed only
where the same process had opened it (`with mlflow.start_run(): model.train(...)`), since then nobody is left who
could. A run of `mlflow run` (`MLFLOW_RUN_ID`) is left open here: its driver may live and knows better. `mlflow-yolo
doctor --fix`, which a person calls, closes it as well.
"""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow_yolo.tracking.delivery.journal import Record, is_archived, read_all, run_directory
from mlflow_yolo.tracking.delivery.journal_writer import JournalWriter

STATISTICS = "statistics"
_DISK_TIMEOUT_S = 5.0


def append_end(journal: Path, *, status: str = "KILLED", state: str | None = "interrupted") -> None:
    """Append what is missing at the end of `journal`, whose lock the caller holds.

    Args:
        journal: The journal of a process that is gone.
        status: How the run ended; a status that the server already knows to be final is kept.
        state: Why, as tag; None for no tag.
    """
    start_ms, last_ms, terminate = 0, 0, True
    for entry in read_all(journal):
        last_ms = int(entry.record.get("t", last_ms))
        if entry.record.get("type") == "open":
            start_ms = int(entry.record.get("t", 0))
            terminate = not entry.record.get("run_id") or bool(entry.record.get("ends_with_process"))
    changed_ns = journal.stat().st_mtime_ns
    writer = JournalWriter(journal)
    for record in _statistics(journal):
        writer.append(record)
    writer.append(
        {
            "type": "close",
            # Not before the start: the machine's clock may have been set back meanwhile.
            "t": max(start_ms, last_ms) or int(time.time() * 1000),
            "status": status,
            "state": state,
            "terminate": terminate,
            "only_if_running": True,
        }
    )
    writer.close(_DISK_TIMEOUT_S)
    if is_archived(journal):  # its age tells files of its own from those that a later run wrote over them
        os.utime(journal, ns=(changed_ns, changed_ns))


def keep_statistics(journal: Path, folder: Path) -> None:
    """End the run of `journal` whose directory a new run is about to use; copies of its statistics go to `folder`."""
    directory = run_directory(journal)
    files = [file for record in _statistics(journal) if (file := directory / str(record.get("path", ""))).is_file()]
    writer = JournalWriter(journal)
    for file in files:
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / file.name
        shutil.copyfile(file, copy)
        writer.append(_file(copy.relative_to(directory)))
    writer.close(_DISK_TIMEOUT_S)


def this_host() -> str:
    """Return the name of this machine: a journal written on another one may belong to a process that lives there."""
    return platform.node()


def _statistics(journal: Path) -> Iterator[Record]:
    """Yield the records that upload the statistics which the dead process had spooled."""
    directory = run_directory(journal)
    folder = directory / STATISTICS
    if is_archived(journal) or not folder.is_dir():
        return
    try:
        from mlflow_yolo.figures.statistics_report import statistics_report
        from mlflow_yolo.statistics.storage import assemble, read

        files = assemble(folder)
        for file in files:
            yield _file(file.relative_to(directory))
        if files:
            report = folder / "report.html"
            report.write_text(statistics_report(*read(folder), title=directory.name), encoding="utf-8")
            yield _file(report.relative_to(directory))
    except Exception as error:  # values and files are delivered all the same
        yield {"type": "rejected", "reason": f"statistics: {type(error).__name__}: {error}"}


def _file(relative: Path) -> Record:
    return {"type": "file", "path": relative.as_posix(), "artifact_path": STATISTICS}
