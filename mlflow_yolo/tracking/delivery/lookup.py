"""Finding the run that a journal belongs to at the server, or creating it; also blocks on the network."""

import re
from typing import TYPE_CHECKING

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.journal import Record
from mlflow_yolo.tracking.delivery.server import ServerRun
from mlflow_yolo.tracking.stores.addresses import sqlite_path
from mlflow_yolo.tracking.stores.client import Undeliverable, undeliverable

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""How MLflow names a run that nobody named: `smiling-ant-866`."""


def find_or_create_run(client: "MlflowClient", opening: Record) -> ServerRun:
    """Return the run that `opening` describes: the adopted one, the one that carries its uid, or a new one.

    Raises:
        Undeliverable: The server does not answer, or the run's parent is not there yet.
    """
    try:
        if opening.get("run_id"):
            return _adopt(client, opening)
        experiment_id = _experiment_id(client, opening)
        if run_id := _find_by_uid(client, experiment_id, opening["uid"]):
            return ServerRun(client, run_id)
        return ServerRun(client, _create(client, experiment_id, opening))
    except Undeliverable:
        raise
    except Exception as error:
        raise undeliverable(error) from error


def _adopt(client: "MlflowClient", opening: Record) -> ServerRun:
    run = client.get_run(opening["run_id"])
    adopted = ServerRun(client, opening["run_id"])
    tags = {key: value for key, value in opening.get("tags", {}).items() if not key.startswith("mlflow.")}
    own = tags if run.data.tags.get(keys.TAG_UID) else {keys.TAG_UID: opening["uid"], **tags}
    if opening.get("name") and _GENERATED_NAME.fullmatch(run.info.run_name or ""):
        own |= {keys.TAG_NAME: opening["name"]}
    adopted.send([{"type": "tags", "values": own}])
    return adopted


def _create(client: "MlflowClient", experiment_id: str, opening: Record) -> str:
    tags = {**opening.get("tags", {}), keys.TAG_UID: opening["uid"]}
    parent_run_id = opening.get("parent_run_id")
    if parent_uid := opening.get("parent_uid"):
        parent_run_id = parent_run_id or _find_by_uid(client, experiment_id, parent_uid)
        if parent_run_id is None:
            raise Undeliverable(f"the parent run (uid {parent_uid}) is not at the server yet: replay its journal too")
    if parent_run_id:
        tags[keys.TAG_PARENT] = parent_run_id
    # MLflow would draw a missing name from the global `random`, of which Ultralytics' augmentation draws as well.
    name = opening.get("name") or f"run-{opening['uid'][:8]}"
    run = client.create_run(experiment_id, start_time=int(opening["t"]), tags=tags, run_name=name)
    return str(run.info.run_id)


def _find_by_uid(client: "MlflowClient", experiment_id: str, uid: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{keys.TAG_UID}` = '{uid}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _experiment_id(client: "MlflowClient", opening: Record) -> str:
    """Return the experiment's id; one that is only named is created when missing (by us or by another process)."""
    if opening.get("experiment_id"):
        return str(opening["experiment_id"])
    name = opening.get("experiment")
    if not name:
        return "0"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location(opening)))
        except Exception as error:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise undeliverable(error) from error
    if experiment.lifecycle_stage == "deleted":
        raise Undeliverable(
            f"experiment {name!r} is deleted: restore it (mlflow experiments restore -x {experiment.experiment_id}) "
            "or choose another name"
        )
    return str(experiment.experiment_id)


def _artifact_location(opening: Record) -> str | None:
    """Return where a new experiment of a SQLite store keeps its files: beside the store, from whatever directory."""
    path = sqlite_path(opening["tracking_uri"])
    return None if path is None else str(path.parent / "mlruns" / keys.segment(opening["experiment"]))
