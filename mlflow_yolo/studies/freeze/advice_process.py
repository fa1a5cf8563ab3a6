"""The process that a freeze advice is computed in: the study holds no GPU for it, and outlives its lack of memory."""

import json
import sys
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.stages import Stages
from mlflow_yolo.studies.executors import Job
from mlflow_yolo.studies.executors.local import SubprocessExecutor
from mlflow_yolo.training.freeze_advice import FreezeAdvice
from mlflow_yolo.training.job import read_json, write_json
from mlflow_yolo.training.plan import Plan

ADVICE = "advice.json"
_WORKER = (sys.executable, "-m", "mlflow_yolo.training.advice_worker")


def read_advice(directory: Path) -> FreezeAdvice | None:
    """Return the advice that a study was given, or None."""
    file = directory / ADVICE
    return FreezeAdvice.from_json(read_json(file)) if file.exists() else None


def _question(plan: Plan, source: str | None) -> dict[str, Any]:
    """Return what decides an advice."""
    return {"model": plan.model, "data": plan.data, "imgsz": plan.imgsz, "source": source}


def kept_advice(directory: Path, plan: Plan, source: str | None) -> FreezeAdvice | None:
    """Return the advice of an earlier start of the study, or None where there was none or it was asked otherwise."""
    file = directory / "advice" / "question.json"
    same = file.exists() and read_json(file) == json.loads(json.dumps(_question(plan, source)))
    return read_advice(directory) if same else None


def compute_advice(directory: Path, plan: Plan, source: str | None, *, threads: int) -> FreezeAdvice:
    """Return the advice that a process of its own comes to, and keep it in the study's folder.

    Raises:
        WorkError: It came to none.
    """
    folder = directory / "advice"
    folder.mkdir(exist_ok=True)
    (directory / ADVICE).unlink(missing_ok=True)
    job = {"plan": plan.to_json(), "source": source, "output": str(directory / ADVICE)}
    write_json(folder / "job.json", job)
    write_json(folder / "question.json", _question(plan, source))
    jobs = iter([Job("advice", folder / "job.json")])
    error = f"its process ended early; see {folder / 'console.log'}"
    with Stages() as stages:
        told = stages.count("freeze advice")
        for event in SubprocessExecutor(workers=1, threads=threads, command=_WORKER).run(lambda: next(jobs, None)):
            if "total" in event.values:
                told(event.values["done"], event.values["total"])
            error = event.values.get("error", error)
    advice = read_advice(directory)
    if advice is None:
        raise WorkError(error)
    return advice
