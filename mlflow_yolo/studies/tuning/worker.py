"""A trial in a process of its own: `python -m mlflow_yolo.studies.tuning.worker job.json`.

As `training.worker`, and `{"stop": "pruned"}` on its standard input ends the trial after the next batch. From its first
moment on it is among those that make room for a measurement: importing is work, too.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_yolo.studies.alone import Machine
from mlflow_yolo.training import worker
from mlflow_yolo.training.inbox import Inbox

if TYPE_CHECKING:
    from mlflow_yolo.tracking.run import TrackedRun
    from mlflow_yolo.training.job import Report, Work


def main(job_file: str) -> int:
    """Do the trial that a job file describes, and say how it ended."""
    inbox, notes = Inbox(), list[str]()
    machine = Machine(notes.append)
    machine.enter()

    def make_work(job: Mapping[str, Any], directory: Path) -> "Work":
        def work(run: "TrackedRun", report: "Report") -> dict[str, Any]:
            from mlflow_yolo.studies.tuning.trial import run_trial
            from mlflow_yolo.studies.tuning.trial_plan import TrialPlan

            try:
                return run_trial(
                    TrialPlan.from_json(job["plan"]),
                    run=run,
                    directory=directory,
                    shared=Path(job["shared"]),
                    report=report,
                    inbox=inbox,
                    machine=machine,
                )
            finally:
                machine.close()
                for note in notes:
                    report({"note": note})

        return work

    return worker.main(job_file, make_work=make_work, hear=inbox.hear)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
