"""One child of a study: its run, its work, its result file, in an order that no kill can falsify.

`result.json` is written before the run is closed, so a child either has a result (and is finished, whatever happened
to its last messages) or has none (and was interrupted). The driver reads nothing else.
"""

import contextlib
import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.shortage import is_shortage

if TYPE_CHECKING:
    from mlflow_yolo.tracking.run import TrackedRun

JOB = "job.json"
RESULT = "result.json"
CLOSING = {"finished": ("FINISHED", None), "pruned": ("KILLED", "pruned"), "failed": ("FAILED", None)}
"""Status and state of a run by the `status` of its result."""

Report = Callable[[dict[str, Any]], None]
Work = Callable[["TrackedRun", Report], dict[str, Any]]
"""Does what a job is for, tells how it goes, and returns its result; `status` is `finished` where it does not say."""


def run_job(job: Mapping[str, Any], *, directory: Path, report: Report, work: Work | None = None) -> int:
    """Do what a job describes and return the process' exit code: 0 finished or given up, 1 failed, 130 interrupted.

    Args:
        job: `plan` (see `Plan.to_json`), `run` (arguments of `tracking.run.open_run`), `params`, `shared` (a directory
            for what all children of the study use), `keep_active` (leave the finished run open), `log_models` (log the
            best checkpoint as a model that can be registered), `resume` (go on from the last checkpoint).
        directory: The child's own directory.
        report: Called after every epoch with plain values, with `error` when the work fails (and `retry` where memory
            or disk ran out), and with `note` where something of it could not be delivered.
        work: What is done, None for the training of `plan`.
    """
    from mlflow_yolo.tracking.run import open_run
    from mlflow_yolo.tracking.stores.addresses import with_password
    from mlflow_yolo.tracking.system_metrics import system_metrics

    work = work or _training(job, directory)
    run = open_run(directory, **{**job["run"], "tracking_uri": with_password(job["run"]["tracking_uri"])})
    run.log_params(job["params"])
    try:
        with system_metrics(run):
            done = work(run, report)
        result = {"status": "finished", "uid": run.uid, "params": job["params"], **done}
        write_json(directory / RESULT, result)
    except KeyboardInterrupt:
        run.close("KILLED", state="interrupted", timeout_s=5.0)
        return 130
    except Exception as error:
        _fail(error, run, directory=directory, report=report)
        return 1
    status, state = CLOSING[result["status"]]
    delivery = run.close(status, state=state, keep_active=bool(job.get("keep_active")))
    if delivery.reason:
        waiting = f"{delivery.n_pending} records are not delivered yet: " if delivery.n_pending else ""
        report({"note": f"{waiting}{delivery.reason}"})
    return 0


def _training(job: Mapping[str, Any], directory: Path) -> Work:
    """Return the training of a job's plan, made before its run is opened: an earlier attempt lies in its journal."""
    from mlflow_yolo.tracking.delivery.journal import journal_path
    from mlflow_yolo.tracking.events.earlier import read_earlier

    earlier = read_earlier(journal_path(directory)) if job.get("resume") else None

    def train_plan(run: "TrackedRun", report: Report) -> dict[str, Any]:
        from mlflow_yolo.training.train import train

        return train(
            Plan.from_json(job["plan"]),
            run=run,
            directory=directory,
            shared=Path(job["shared"]),
            report=report,
            earlier=earlier,
            log_models=bool(job.get("log_models")),
        )

    return train_plan


def _fail(error: Exception, run: "TrackedRun", *, directory: Path, report: Report) -> None:
    """Write down and say why there is no result; on a full disk the words alone must do."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    reason = str(error) if isinstance(error, MlflowYoloError) else f"{type(error).__name__}: {error}"
    said = {"error": reason, **({"retry": True} if is_shortage(error) else {})}
    run.log_text("".join(traceback.format_exception(error)), "traceback.txt")
    with contextlib.suppress(OSError):
        write_json(directory / RESULT, {"status": "failed", "uid": run.uid, **said})
    run.close("FAILED")
    report(said)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` so that the file is there whole or not at all, also after a power cut."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote."""
    return dict(json.loads(path.read_text()))
