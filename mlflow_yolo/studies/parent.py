"""The parent run of a study: the one it was started with, or the run that `mlflow run` has just opened."""

from mlflow_yolo import keys
from mlflow_yolo.studies.study import Study
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.target import Target


def open_parent(study: Study, target: Target) -> TrackedRun:
    """Return the study's open parent run.

    Args:
        study: The study, held by this process.
        target: Where its runs go.
    """
    known = point_to_parent(study, target)
    return open_run(
        study.directory,
        **target.place,
        uid=study.uid,
        run_id=None if known else target.run_id,
        name=target.run_name or study.name,
        study=study.name,
    )


def point_to_parent(study: Study, target: Target) -> str | None:
    """Return the parent run's id where it is known; tag a later run of `mlflow run` as a pointer to it."""
    earlier = read_run_file(study.directory)
    known = earlier.run_id if earlier and earlier.uid == study.uid else None
    if target.run_id and known and known != target.run_id:
        pointer = open_run(study.directory / "pointers" / target.run_id, **target.place, run_id=target.run_id)
        pointer.set_tags({keys.TAG_CONTINUES: known, keys.TAG_STUDY: study.name})
        pointer.close()
    return known
