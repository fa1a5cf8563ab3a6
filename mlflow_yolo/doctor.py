"""Is the set-up right? Each check returns findings as plain data: what was looked at, what is true, what to do."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from mlflow_yolo import keys
from mlflow_yolo.exceptions import MlflowYoloError

Status = Literal["ok", "warn", "fail"]

PACKAGES = ("mlflow", "ultralytics", "torch", "torchvision")
LOADED = ("torch", "cv2")  # compiled parts that can be installed and still not load
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        status: `ok`; `warn`, everything works but something waits for you; `fail`, training or tracking would not work.
        subject: What was looked at, one or two words.
        detail: What is true.
        remedy: What to do about it, empty for `ok`.
    """

    status: Status
    subject: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.subject:<11}  {self.detail}" + (f". {self.remedy}" if self.remedy else "")


def doctor(directory: Path, *, tracking_uri: str, fix: bool = False, init: bool = False) -> list[Finding]:
    """Return what is right and wrong with this machine, the store and the runs below `directory`.

    Args:
        directory: Where studies and trainings wrote; it need not exist yet.
        tracking_uri: The MLflow store.
        fix: Repair what can be repaired without losing anything: move a half-made store aside, replay pending
            journals, and close runs whose process died.
        init: Create a SQLite store that does not exist yet.
    """
    findings = [check_python(), *check_packages(), check_device()]
    store = check_tracking_store(tracking_uri, fix=fix, init=init)
    findings += [store, check_journals(directory, fix=fix)]
    if store.status == "ok":
        findings += check_runs(directory, tracking_uri=tracking_uri, fix=fix)
    return findings


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Say whether this Python is new enough."""
    detail = f"{'.'.join(map(str, version))} on {platform.system()} {platform.machine()}, {sys.executable}"
    if version < OLDEST_PYTHON:
        return Finding("fail", "Python", detail, "Install Python 3.11 or newer and run: make clean install")
    return Finding("ok", "Python", detail)


def check_packages(names: Iterable[str] = PACKAGES, loaded: Iterable[str] = LOADED) -> Iterator[Finding]:
    """Say which versions are installed, whether they are within our bounds, and whether compiled parts load."""
    bounds = _bounds()
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", name, "not installed", "Run: make install")
            continue
        bound = bounds.get(name)
        if bound is None or bound.specifier.contains(version, prereleases=True):
            yield Finding("ok", name, version)
        else:
            yield Finding("warn", name, f"{version} is outside {bound.specifier}", f"Run: pip install '{bound}'")
    for name in loaded:
        try:
            importlib.import_module(name)
        except ImportError as error:
            yield Finding("fail", name, f"does not load: {error}", _remedy_for_loading(str(error)))


def check_device() -> Finding:
    """Say on what training would run."""
    try:
        import torch
    except ImportError:
        return Finding("fail", "device", "unknown, because torch does not load", "Run: make install")
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", "device", ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in found))
    if torch.backends.mps.is_available():
        return Finding("ok", "device", "Apple GPU; use it with --device mps")
    cpu = f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if shutil.which("nvidia-smi"):
        return Finding(
            "warn",
            "device",
            f"{cpu}; there is an NVIDIA driver, but torch {torch.__version__} cannot use it",
            "Install a torch build for the CUDA version that nvidia-smi shows",
        )
    return Finding("ok", "device", cpu)


def check_tracking_store(tracking_uri: str, *, fix: bool = False, init: bool = False) -> Finding:
    """Say whether the store can be used; with `fix` a half-made one is replaced, with `init` a missing one made."""
    from mlflow_yolo.tracking.stores.store import check_store, ensure_store, repair_store

    try:
        aside = repair_store(tracking_uri) if fix else None
        report = ensure_store(tracking_uri) if init or aside else check_store(tracking_uri)
    except MlflowYoloError as error:
        return Finding("fail", "store", str(error))
    if not report.reachable:
        return Finding("warn", "store", report.message)
    moved = f"; the half-made one is now {aside.name}" if aside else ""
    return Finding("ok", "store", f"{report.message}{moved}")


def check_journals(directory: Path, *, fix: bool = False) -> Finding:
    """Say which runs below `directory` hold values that the server has not been given; with `fix` send them."""
    from mlflow_yolo.tracking.delivery.replay import pending_journals, replay

    if not directory.is_dir():
        return Finding("ok", "journals", f"nothing is pending: {directory} does not exist yet")
    pending = pending_journals(directory)
    if not pending:
        return Finding("ok", "journals", f"nothing is pending below {directory}")
    if not fix:
        detail = f"{_count(len(pending), 'run')} below {directory} did not reach the server completely"
        return Finding("warn", "journals", detail, f"Run: mlflow-yolo replay {directory}")
    report = replay(directory)
    detail = f"{_count(report.n_sent_runs, 'run')} sent, {report.n_interrupted} of them closed as interrupted"
    if report.n_pending:
        why = "; ".join(report.errors)
        return Finding("warn", "journals", f"{detail}, {_count(report.n_pending, 'record')} left: {why}")
    return Finding("ok", "journals", detail)


_Process = Literal["alive", "dead", "ended"]


def check_runs(directory: Path, *, tracking_uri: str, fix: bool = False) -> Iterator[Finding]:
    """Say which runs the store shows as RUNNING although their process died; with `fix` close those as KILLED.

    A run without a journal below `directory` may be running on another machine: it is named and never closed.
    """
    from mlflow_yolo.tracking.delivery.server import ServerRun, connect
    from mlflow_yolo.tracking.stores.addresses import sqlite_path

    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        return
    client = connect(tracking_uri)
    processes = _processes(directory)
    running = {
        run.info.run_id: processes.get(run.info.run_id) or processes.get(run.data.tags[keys.TAG_UID])
        for run in _running(client)
    }
    dead = [run_id for run_id, process in running.items() if process == "dead"]
    if fix:
        for run_id in dead:
            ServerRun(client, run_id).finish(
                {"status": "KILLED", "state": "interrupted", "t": time.time() * 1000, "only_if_running": True}
            )
        if dead:
            yield Finding("ok", "runs", f"{_count(len(dead), 'run')} of dead processes closed as KILLED (interrupted)")
    elif dead:
        detail = f"{_count(len(dead), 'run')} shown as RUNNING whose process died: {_some(dead)}"
        yield Finding("warn", "runs", detail, f"Run: mlflow-yolo doctor {directory} --fix")
    if unknown := [run_id for run_id, process in running.items() if process is None]:
        detail = f"{_count(len(unknown), 'run')} RUNNING without a journal below {directory}: {_some(unknown)}"
        yield Finding("warn", "runs", detail, "If they are not running elsewhere, name the folder they wrote to")
    if not dead and not unknown:
        yield Finding("ok", "runs", f"none is stale, {len(running)} running")


def _running(client: Any) -> Iterator[Any]:
    """Yield the runs of this package that the store shows as RUNNING, in all experiments."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    token = None
    while experiments:
        page = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=1000, page_token=token)
        yield from (run for run in page if keys.TAG_UID in run.data.tags)
        token = page.token
        if not token:
            return


def _processes(directory: Path) -> dict[str, _Process]:
    """Return what became of the process of each run below `directory`, by our uid and by MLflow's id of the run.

    `ended` is a run that its own process closed; if it is still RUNNING then somebody else opened it and may go on.
    Where several journals belong to one run (a training and a validation in it), the liveliest counts.
    """
    from mlflow_yolo.tracking.delivery.journal import Cursor, opening, read_all
    from mlflow_yolo.tracking.delivery.ownership import is_locked
    from mlflow_yolo.tracking.delivery.replay import find_journals

    found: dict[str, set[_Process]] = {}
    for journal in find_journals(directory) if directory.is_dir() else []:
        record = opening(journal)
        if record is None:
            continue
        ends = [e.record for e in read_all(journal) if e.record.get("type") in ("open", "close")]
        # `only_if_running` marks the end that replay wrote for a process that could not.
        died = ends[-1]["type"] == "open" or ends[-1].get("only_if_running", False)
        process: _Process = "alive" if is_locked(journal) else "dead" if died else "ended"
        for name in filter(None, (record["uid"], record.get("run_id"), Cursor.load(journal).run_id)):
            found.setdefault(name, set()).add(process)
    order: tuple[_Process, ...] = ("alive", "dead", "ended")
    return {name: next(process for process in order if process in those) for name, those in found.items()}


def _bounds() -> dict[str, Requirement]:
    """Return our own requirements by name; empty where the package is run from its folder without being installed."""
    try:
        lines = importlib.metadata.requires("mlflow-yolo") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {requirement.name: requirement for requirement in map(Requirement, lines) if requirement.marker is None}


def _remedy_for_loading(error: str) -> str:
    if "libGL" in error or "libglib" in error:
        return "Install the system libraries, for example with: apt-get install libgl1 libglib2.0-0"
    return "Run: make clean install"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
