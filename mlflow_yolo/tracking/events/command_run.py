"""The run of a command that is no training: opened, closed as what became of it, with its data as input."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow_yolo import __version__, keys
from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.tracked_training import keep_active
from mlflow_yolo.tracking.run import TrackedRun, open_run
from mlflow_yolo.tracking.stores.store import check_store, ensure_store
from mlflow_yolo.tracking.stores.target import Target


@contextmanager
def command_run(tracking: Target, directory: Path, *, uid: str | None = None) -> Iterator[TrackedRun]:
    """Open a run in `directory`, and close it as FINISHED, FAILED or KILLED.

    Args:
        tracking: Where the run goes; a store that cannot be reached is said and waited for by `replay`.
        directory: The run's own directory.
        uid: Our uid of the run to continue, None for a new one.
    """
    if not ensure_store(tracking.tracking_uri).reachable:
        print(f"note: {check_store(tracking.tracking_uri, journal_directory=directory).message}", file=sys.stderr)
    name = tracking.run_name or (None if tracking.run_id else directory.name)
    adopted = None if uid else tracking.run_id
    known = read_run_file(directory) if uid else None
    if known and tracking.run_id and tracking.run_id != known.run_id:
        # `mlflow run` has opened a run for this command: it only points to the one that goes on.
        pointer = open_run(directory / "pointers" / tracking.run_id, **tracking.place, run_id=tracking.run_id)
        pointer.set_tags({keys.TAG_CONTINUES: known.run_id or known.uid})
        pointer.close()
    run = open_run(directory, **tracking.place, run_id=adopted, uid=uid, name=name, recover=False)
    run.set_tags({keys.TAG_VERSION: __version__})
    with _closing(run):
        yield run
    run.close("FINISHED", keep_active=keep_active())


@contextmanager
def child_run(
    parent: TrackedRun, tracking: Target, directory: Path, *, name: str, uid: str | None = None
) -> Iterator[TrackedRun]:
    """Open a run below `parent`, and close it as FINISHED, FAILED or KILLED.

    Args:
        parent: An open run.
        tracking: Where it goes.
        directory: The child's own directory.
        name: The child's name.
        uid: Our uid of the child to continue, None for a new one.
    """
    run = open_run(
        directory,
        **tracking.place,
        name=name,
        parent_uid=parent.uid,
        parent_run_id=parent.run_id,
        uid=uid,
        recover=False,
    )
    run.set_tags({keys.TAG_VERSION: __version__})
    with _closing(run):
        yield run
    run.close("FINISHED")


@contextmanager
def _closing(run: TrackedRun) -> Iterator[None]:
    """Close a run that does not come to its end as FAILED, or as KILLED where the user stopped it."""
    try:
        yield
    except KeyboardInterrupt:
        run.close("KILLED", state="interrupted", timeout_s=5.0)
        raise
    except BaseException:
        run.close("FAILED")
        raise


def log_dataset(run: TrackedRun, dataset: Dataset, *, context: str) -> None:
    """Log the data as an input of the run: digest, place, and the images and objects of every split."""
    profile: Mapping[str, object] = {
        name: {"images": split.n_images, "backgrounds": split.n_backgrounds, "objects": split.n_objects}
        for name, split in dataset.splits.items()
    }
    run.log_dataset(dataset.name, dataset.fingerprint, source=str(dataset.yaml), profile=profile, context=context)
