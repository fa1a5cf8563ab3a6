"""Where the next run goes: into the run that is active in MLflow, under it, or into a new one.

Nothing of MLflow's state is changed, only read: its active run (of the calling thread), `MLFLOW_RUN_ID`, the
experiment and the store that were set or that the environment names.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_yolo.tracking.delivery import server
from mlflow_yolo.tracking.events.options import Options
from mlflow_yolo.tracking.stores.addresses import absolute, with_password, without_password
from mlflow_yolo.tracking.stores.target import DEFAULT_URI, resolve_target

_EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
_TAKEN: set[str] = set()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Destination:
    """Where one run goes; plain text, so that it can travel into the processes of a training.

    Attributes:
        tracking_uri: The store, absolute.
        experiment: The experiment's name, or None where its id is given.
        experiment_id: The experiment's id, or None.
        run_name: A name that was asked for, or None.
        run_id: The run to log into, which stays open; None for a new run.
        parent_run_id: The run that a new one is nested under, or None.
    """

    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    run_name: str | None
    run_id: str | None = None
    parent_run_id: str | None = None

    @property
    def place(self) -> dict[str, Any]:
        """Return what `open_run` needs to know of the store, the experiment and the runs."""
        return {
            "tracking_uri": with_password(self.tracking_uri),
            "experiment": self.experiment,
            "experiment_id": self.experiment_id,
            "run_id": self.run_id,
            "parent_run_id": self.parent_run_id,
        }

    def without_secret(self) -> "Destination":
        """Return the destination without a password; `place` finds it again in the environment."""
        return replace(self, tracking_uri=without_password(self.tracking_uri))


def resolve_destination(
    options: Options, *, exclusively: bool = False, environment: Mapping[str, str] = os.environ
) -> Destination:
    """Return where a run that starts now in this thread goes.

    Args:
        options: What the user asked for; it wins over MLflow's state.
        exclusively: Take the active run for this run alone: whoever comes second is nested under it, because two
            trainings in one run would mix the steps of their metrics. Give it back with `release`.
        environment: The environment.
    """
    server.load_mlflow()
    import mlflow
    from mlflow.tracking import fluent

    active = mlflow.active_run()
    current = _current_uri(environment, is_active=active is not None)
    uri = absolute(options.tracking_uri or current)
    same_store = uri == current
    # set_experiment() wins over the environment, as in MLflow; there is no public way to ask for it. It also exports
    # its id, which means nothing in another store.
    chosen_id = getattr(fluent, "_active_experiment_id", None)
    if chosen_id and not same_store and environment.get(_EXPERIMENT_ID) == str(chosen_id):
        environment = {name: value for name, value in environment.items() if name != _EXPERIMENT_ID}
    target = resolve_target(
        tracking_uri=uri, experiment=options.experiment, run_name=options.run_name, environment=environment
    )
    experiment, experiment_id = target.experiment, target.experiment_id
    if same_store and chosen_id and options.experiment is None:
        experiment, experiment_id = None, str(chosen_id)
    found = Destination(uri, experiment, experiment_id, target.run_name)
    if options.exclusive or not same_store:
        return found
    run_id = active.info.run_id if active else target.run_id
    if run_id is None:
        return found
    if not exclusively or take(run_id):
        return replace(found, run_id=run_id)
    if active is not None:
        found = replace(found, experiment=None, experiment_id=str(active.info.experiment_id))
    return replace(found, parent_run_id=run_id)


def _current_uri(environment: Mapping[str, str], *, is_active: bool) -> str:
    """Return the store that MLflow would use now.

    Where nobody chose one it is MLflow's SQLite default, also beside an old `./mlruns` folder: MLflow itself refuses to
    open such a folder unless it is told to.
    """
    import mlflow

    chosen = is_active or mlflow.is_tracking_uri_set() or environment.get("MLFLOW_ALLOW_FILE_STORE")
    return absolute(mlflow.get_tracking_uri() if chosen else DEFAULT_URI)


def take(run_id: str) -> bool:
    """Return whether the calling training is the first one in this process to log into `run_id`."""
    with _LOCK:
        is_first = run_id not in _TAKEN
        _TAKEN.add(run_id)
        return is_first


def release(run_id: str) -> None:
    """Give a run back that was taken, but that nothing was logged into."""
    with _LOCK:
        _TAKEN.discard(run_id)
