"""One tracked run: what the trainer sees of MLflow. Nothing here waits for the network or raises for it.

run = open_run(save_dir, tracking_uri="sqlite:///mlflow.db", experiment="bccd")
run.log_metrics({"train/box_loss": 1.2}, step=1)
delivery = run.close()
"""

import contextlib
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.datasets import dataset_record
from mlflow_yolo.tracking.delivery.images import grid_files, grid_records, write_grid_files
from mlflow_yolo.tracking.delivery.interruption import keep_statistics, this_host
from mlflow_yolo.tracking.delivery.journal import Record, journal_path, last_record, opening
from mlflow_yolo.tracking.delivery.journal_writer import JournalWriter
from mlflow_yolo.tracking.delivery.left_over import LeftOverRuns
from mlflow_yolo.tracking.delivery.metric_values import METRIC_NONFINITE as METRIC_NONFINITE
from mlflow_yolo.tracking.delivery.metric_values import metric_records, snapshot
from mlflow_yolo.tracking.delivery.ownership import claim, reclaim
from mlflow_yolo.tracking.delivery.run_file import RunFile, write_run_file
from mlflow_yolo.tracking.delivery.run_file import read_run_file as read_run_file
from mlflow_yolo.tracking.delivery.sender import Delivery, JournalSender
from mlflow_yolo.tracking.delivery.sender_thread import SenderThread
from mlflow_yolo.tracking.stores.addresses import absolute, answers, without_password
from mlflow_yolo.tracking.stores.client import ClientFactory, connect, load_mlflow
from mlflow_yolo.tracking.stores.context import context_tags, is_active_here

STATUSES = ("FINISHED", "FAILED", "KILLED")
_DISK_TIMEOUT_S = 5.0


class TrackedRun:
    """A run that is being journaled and delivered; made by `open_run`.

    Its methods may be called from any thread, return at once (`flush` and `close` excepted) and never raise for a full
    disk, a dead server or a value that is no number.
    """

    def __init__(
        self,
        directory: Path,
        *,
        uid: str,
        writer: JournalWriter,
        sender: JournalSender,
        lock: FileLock | None = None,
        adopted: bool = False,
        left_over: LeftOverRuns | None = None,
    ) -> None:
        self.directory = directory
        self.uid = uid
        self._writer = writer
        self._sender = sender
        self._thread = SenderThread(sender, on_end=lambda: lock.release() if lock else None)
        self._closed: Delivery | None = None
        self._adopted = adopted
        self._left_over = left_over

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has answered for the first time."""
        return self._sender.run_id

    def log_metrics(self, values: Mapping[str, Any], *, step: int = 0, timestamp_ms: int | None = None) -> None:
        """Log numbers (Python, numpy, one-element tensors) under sanitised keys; what is no number is left out."""
        if values:
            t = _now_ms() if timestamp_ms is None else timestamp_ms
            self._writer.append(partial(metric_records, snapshot(values), t=t, step=int(step)))

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log parameters as text; a key that the run already holds keeps its value."""
        self._log_texts("params", values)

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._log_texts("tags", values)

    def log_file(self, path: Path | str, artifact_path: str = "") -> None:
        """Upload a file or directory below `artifact_path`; one outside the run's directory is copied into it first.

        It is read when it is sent, so a file that changes meanwhile arrives in its newest state.
        """
        path = Path(path).absolute()
        if not path.is_relative_to(self.directory):
            with contextlib.suppress(OSError):  # else it is sent from where it lies
                path = self._copy_inside(path, artifact_path)
        self._writer.append(self._file(path, artifact_path))

    def log_text(self, text: str, artifact_file: str) -> None:
        """Upload `text` as the artifact `artifact_file`, for example `report/report.html`."""
        path = self._inside(artifact_file)
        parent = Path(artifact_file).parent.as_posix()

        def make() -> list[Record]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return [self._file(path, "" if parent == "." else parent)]

        self._writer.append(make)

    def log_image(self, key: str, image: Any, *, step: int) -> None:
        """Add an image to the grid of MLflow's UI, one per key and step.

        Args:
            key: Name of the series; the same key in several runs puts them side by side.
            image: (H, W, 3) or (H, W) uint8 RGB array, copied here and encoded by the writer thread; or a file's path.
            step: Position of the grid's slider, usually the epoch.
        """
        png, webp = grid_files(
            self.directory / "mlflow_yolo", key, step=int(step), timestamp_ms=_now_ms(), uid=self.uid
        )
        source = Path(image).absolute() if isinstance(image, str | Path) else image.copy()

        def make() -> list[Record]:
            write_grid_files(source, png, webp)
            return grid_records(self.directory, png, webp)

        self._writer.append_later(make)

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any], context: str) -> None:
        """Log a dataset as input of the run; see `datasets.dataset_record`."""
        self._writer.append(
            dataset_record(name=name, digest=digest, source=str(source), profile=profile, context=context)
        )

    def flush(self, timeout_s: float = 30.0) -> Delivery:
        """Send everything logged so far, waiting at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self._writer.flush(min(timeout_s, _DISK_TIMEOUT_S))
        return self._delivery(self._thread.drain(deadline=deadline))

    def close(
        self,
        status: str = "FINISHED",
        *,
        state: str | None = None,
        timeout_s: float = 30.0,
        close_adopted: bool = False,
        keep_active: bool = False,
    ) -> Delivery:
        """End the run and deliver what is left. A second call changes nothing.

        Args:
            status: FINISHED, FAILED or KILLED.
            state: Why it was killed: `interrupted` or `pruned`.
            timeout_s: How long a slow server is waited for; one that does not answer at all costs about a second.
            close_adopted: Also end a run that somebody else opened.
            keep_active: Deliver everything but leave the run open at the server (MLFLOW_KEEP_RUN_ACTIVE).

        Returns:
            What could not be delivered, and why; it stays in the journal for `replay`.
        """
        if self._closed is not None:
            return self._closed
        deadline = time.monotonic() + timeout_s
        end = {
            "type": "close",
            "t": _now_ms(),
            "status": status if status in STATUSES else "FINISHED",
            "state": state,
            "terminate": not keep_active and (close_adopted or not self._adopted),
        }
        self._writer.append_later(lambda: [end])  # after images that are still being encoded
        tail = self._writer.close(min(timeout_s, _DISK_TIMEOUT_S))
        reason = self._thread.drain(deadline=deadline, tail=tail)
        self._thread.stop()
        if self._left_over is not None:
            self._left_over.stop()
        self._closed = self._delivery(reason, n_unwritten=tail.count(b"\n") if reason else 0)
        return self._closed

    def _delivery(self, obstacle: str, n_unwritten: int | None = None) -> Delivery:
        n_unwritten = self._writer.n_unwritten() if n_unwritten is None else n_unwritten
        n_dropped, rejected = self._writer.n_dropped_metrics, list(self._sender.rejected)
        parts = [obstacle]
        if self._writer.refusal and not n_unwritten:
            parts.append(f"the disk refused the journal ({self._writer.refusal}), values waited in memory")
        if n_dropped:
            parts.append(f"{n_dropped} values dropped ({self._writer.error})")
        if n_unwritten:
            parts.append(f"{n_unwritten} records only in memory ({self._writer.error})")
        if rejected:
            parts.append(f"{len(rejected)} rejected, first {rejected[0]}")
        return Delivery(
            n_pending=self._sender.n_pending() + n_unwritten,
            reason="; ".join(part for part in parts if part),
            n_dropped_metrics=n_dropped,
            n_rejected=len(rejected),
        )

    def _log_texts(self, kind: str, values: Mapping[str, Any]) -> None:
        if values:
            texts = {keys.sanitise(str(key)): str(value) for key, value in values.items()}
            self._writer.append({"type": kind, "values": texts})

    def _file(self, path: Path, artifact_path: str) -> Record:
        inside = path.is_relative_to(self.directory)
        shown = path.relative_to(self.directory) if inside else path
        return {"type": "file", "path": shown.as_posix(), "artifact_path": artifact_path}

    def _inside(self, artifact_file: str) -> Path:
        """Return where an artifact that lies nowhere else is kept; `..` and leading slashes do not lead out."""
        parts = [part for part in Path(artifact_file).parts if part not in ("/", "..", "")]
        return self.directory.joinpath("mlflow_yolo", "files", *parts)

    def _copy_inside(self, path: Path, artifact_path: str) -> Path:
        copy = self._inside(f"{artifact_path}/{path.name}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, dirs_exist_ok=True)
        else:
            shutil.copyfile(path, copy)
        return copy


def open_run(
    directory: Path,
    *,
    tracking_uri: str,
    experiment: str | None = None,
    experiment_id: str | None = None,
    name: str | None = None,
    parent_uid: str | None = None,
    parent_run_id: str | None = None,
    run_id: str | None = None,
    uid: str | None = None,
    tags: Mapping[str, str] | None = None,
    study: str | None = None,
    recover: bool = True,
    client_factory: ClientFactory = connect,
    probe: Callable[[str], bool] = answers,
) -> TrackedRun:
    """Start journaling a run in `directory` and delivering it in the background; talks to no server itself.

    The first call in a process takes the seconds that importing MLflow takes.

    Args:
        directory: The run's directory (Ultralytics' save_dir); created when missing.
        tracking_uri: Where the run belongs; a password in it is used but not written down.
        experiment: Name of the experiment, created when missing.
        experiment_id: Id of the experiment, instead of its name; without both MLflow's default one.
        name: The run's name.
        parent_uid: Our uid of the parent run, which may itself not have reached the server yet.
        parent_run_id: MLflow's id of the parent run, where that is known.
        run_id: An existing run to adopt instead of creating one (`MLFLOW_RUN_ID`); it is not closed by us.
        uid: Our uid of a run to continue (from `run.json`); default a new run.
        tags: Tags of the run.
        study: Name of the study it belongs to.
        recover: Deliver and close, in the background, what killed runs left in the directories beside this one (see
            `left_over`). Not done for a run with `parent_uid`: a study cares for its own.
        client_factory: Makes the MLflow client of a URI.
        probe: Says quickly whether anybody answers at a URI.

    Raises:
        WorkError: Another process is writing in `directory`.
    """
    directory, uri = Path(directory).absolute(), absolute(tracking_uri)
    journal, stored = journal_path(directory), without_password(absolute(tracking_uri))
    load_mlflow()
    lock = claim(journal)
    known = opening(journal)
    if known is not None and known["uid"] != uid:
        _archive(journal, known["uid"])
    own_uid = uid or uuid.uuid4().hex
    _start_run_file(directory, RunFile(own_uid, run_id, stored, experiment, experiment_id, study))
    writer = JournalWriter(journal, reclaim=partial(reclaim, journal, lock, uid=own_uid))
    writer.append(
        {
            "type": "open",
            "t": _now_ms(),
            "uid": own_uid,
            "tracking_uri": stored,
            "experiment": experiment,
            "experiment_id": experiment_id,
            "run_id": run_id,
            "parent_uid": parent_uid,
            "parent_run_id": parent_run_id,
            "name": name,
            "tags": {**context_tags(), **({keys.TAG_STUDY: study} if study else {}), **(tags or {})},
            "resumed": uid is not None and run_id is None,
            "ends_with_process": run_id is not None and is_active_here(run_id),
            "host": this_host(),
        }
    )
    left_over = None
    if recover and not parent_uid:
        left_over = LeftOverRuns(directory, client_factory=client_factory, probe=probe)
    sender = JournalSender(journal, tracking_uri=uri, client_factory=client_factory, probe=probe)
    return TrackedRun(
        directory, uid=own_uid, writer=writer, sender=sender, lock=lock, adopted=run_id is not None, left_over=left_over
    )


def _archive(journal: Path, uid: str) -> None:
    """Move the journal of an earlier run out of the way, together with its cursor; `replay` finds it there."""
    folder = journal.parent / "earlier" / uid
    try:
        if (last_record(journal) or {}).get("type") != "close":
            keep_statistics(journal, folder / "statistics")
        folder.mkdir(parents=True, exist_ok=True)
        if journal.with_suffix(".sent").exists():
            journal.with_suffix(".sent").rename(folder / "journal.sent")
        journal.rename(folder / "journal.jsonl")
    except OSError as error:
        print(f"mlflow_yolo: {journal}: {error.strerror or error}", file=sys.stderr)


def _start_run_file(directory: Path, content: RunFile) -> None:
    earlier = read_run_file(directory)
    same = earlier is not None and earlier.uid == content.uid and earlier.tracking_uri == content.tracking_uri
    run_id = content.run_id or (earlier.run_id if earlier is not None and same else None)
    write_run_file(
        directory,
        RunFile(content.uid, run_id, content.tracking_uri, content.experiment, content.experiment_id, content.study),
    )


def _now_ms() -> int:
    return int(time.time() * 1000)
