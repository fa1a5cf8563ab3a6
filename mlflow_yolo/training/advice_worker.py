"""The freeze advisor in a process of its own: `python -m mlflow_yolo.training.advice_worker job.json`.

Whatever becomes of it, out of memory included, the study that asked goes on. The job file holds `plan` (see
`Plan.to_json`), `source` (the data to hold the gradients against, or null) and `output`, the file that is written.
Standard output carries how far it is, and the reason where it fails.
"""

import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import MlflowYoloError
from mlflow_yolo.training.job import Report, write_json
from mlflow_yolo.training.worker import serve


def main(job_file: str) -> int:
    """Write the advice that a job file asks for; return 0, or 1 where there is none."""
    return serve(job_file, _try)


def _try(job: Mapping[str, Any], _: Path, report: Report) -> int:
    try:
        _write_advice(job, report)
    except Exception as error:
        traceback.print_exc()
        report({"error": str(error) if isinstance(error, MlflowYoloError) else f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _write_advice(job: Mapping[str, Any], report: Report) -> None:
    """Measure what the job names, and write it whole or not at all."""
    from mlflow_yolo.blocks import read_blocks
    from mlflow_yolo.datasets.dataset import load_dataset
    from mlflow_yolo.models import checkpoint
    from mlflow_yolo.training.freeze_advice import advise
    from mlflow_yolo.training.plan import Plan

    plan, source = Plan.from_json(job["plan"]), job["source"]
    with tempfile.TemporaryDirectory() as directory:
        advice = advise(
            plan.model,
            read_blocks(checkpoint.load(plan.model).model.yaml),
            load_dataset(plan.data, task=plan.task),
            imgsz=plan.imgsz,
            batch=plan.batch,
            device=plan.device,
            directory=Path(directory),
            source=load_dataset(source, task=plan.task) if source else None,
            seed=plan.seed,
            arguments=plan.arguments,
            progress=lambda done, total: report({"done": done, "total": total}),
        )
    write_json(Path(job["output"]), advice.to_json())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
