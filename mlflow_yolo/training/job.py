"""One child of a study: its run, its training, its result file, in an order that no kill can falsify.

`result.json` is written before the run is closed, so a child either has a result (and is finished, whatever happened
to its last messages) or has none (and was interrupted). The driver reads nothing else.
"""

import json
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.training.plan import Plan

JOB = "job.json"
RESULT = "result.json"


def run_job(job: Mapping[str, Any], *, directory: Path, report: Callable[[dict[str, Any]], None]) -> int:
    """Train what a job describes and return the process' exit code: 0 finished, 1 failed, 130 interrupted.

    Args:
        job: `plan` (see `Plan.to_json`), `run` (arguments of `tracking.run.open_run`), `params`, `shared` (a directory
            for what all children of the study use), `keep_active` (leave the finished run open), `log_models` (log the
            best checkpoint as a model that can be registered), `resume` (go on from the last checkpoint).
        directory: The child's own directory.
        report: Called after every epoch with plain values, with `error` when the training fails, and with `note` where
            something of it could not be delivered.
    """
    from mlflow_yolo.tracking.delivery.journal import journal_path
    from mlflow_yolo.tracking.events.earlier import read_earlier
    from mlflow_yolo.tracking.run import open_run
    from mlflow_yolo.tracking.stores.addresses import with_password
    from mlflow_yolo.tracking.system_metrics import system_metrics
    from mlflow_yolo.training.train import train

    earlier = read_earlier(journal_path(directory)) if job.get("resume") else None
    run = open_run(directory, **{**job["run"], "tracking_uri": with_password(job["run"]["tracking_uri"])})
    run.log_params(job["params"])
    plan, shared = Plan.from_json(job["plan"]), Path(job["shared"])
    try:
        with system_metrics(run):
            result = train(
                plan,
                run=run,
                directory=directory,
                shared=shared,
                report=report,
                earlier=earlier,
                log_models=bool(job.get("log_models")),
            )
        write_json(directory / RESULT, {"status": "finished", "uid": run.uid, "params": job["params"], **result})
    except KeyboardInterrupt:
        run.close("KILLED", state="interrupted", timeout_s=5.0)
        return 130
    except Exception as error:
        traceback.print_exc()
        reason = str(error) if isinstance(error, MlflowYoloError) else f"{type(error).__name__}: {error}"
        run.log_text(traceback.format_exc(), "traceback.txt")
        write_json(directory / RESULT, {"status": "failed", "uid": run.uid, "error": reason})
        run.close("FAILED")
        report({"error": reason})
        return 1
    delivery = run.close("FINISHED", keep_active=bool(job.get("keep_active")))
    if delivery.reason:
        waiting = f"{delivery.n_pending} records are not delivered yet: " if delivery.n_pending else ""
        report({"note": f"{waiting}{delivery.reason}"})
    return 0


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` so that the file is there whole or not at all, also after a power cut."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote."""
    return dict(json.loads(path.read_text()))
