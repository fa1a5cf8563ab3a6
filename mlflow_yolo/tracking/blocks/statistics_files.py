"""The block statistics of a run, read back from any MLflow store."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError, StoreError, WorkError
from mlflow_yolo.statistics.storage import TABLE_FILE, read_table
from mlflow_yolo.tracking.stores.addresses import absolute, redact, sqlite_path
from mlflow_yolo.tracking.stores.store import check_store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.tracking import MlflowClient

FOLDER = "statistics"
"""Of the run's directory and of its artifacts."""


def load_statistics(run_id: str, *, tracking_uri: str | None = None) -> "pd.DataFrame":
    """Return the block statistics of a run as a tidy table, one row for every measured value.

        import mlflow_yolo

        frame = mlflow_yolo.load_statistics("0f3a…")
        l2 = frame[(frame.kind == "gradients") & (frame.statistic == "l2")]
        l2.groupby(["epoch", "name"], observed=True).value.mean().unstack()  # epochs by blocks

    Args:
        run_id: MLflow's id of the run.
        tracking_uri: The store; default the one MLflow uses now (`mlflow.set_tracking_uri`, else
            `MLFLOW_TRACKING_URI`, else `./mlflow.db`). MLflow's own setting is left as it is.

    Returns:
        The columns

        - `epoch`: as in Ultralytics' results.csv, from 1;
        - `step`: optimizer step within the epoch, from 0;
        - `global_step`: optimizer step since the first epoch in the table, from 0, steps that were not sampled
          counted; missing where an earlier epoch does not say how many it had;
        - `block`: index in the model, -1 for the whole model;
        - `name`: of the block, for example `04-C3k2`, or `model`;
        - `kind`: `gradients` and `weights` (of training, gradients unscaled and before clipping), `activations` and
          `batch_norm` (of the EMA model, once an epoch), `training_activations` (with `all`), `global` (the whole
          model), `state`;
        - `statistic`: for example `l2`, `update_ratio`, `off_fraction`, `gradient_norm`;
        - `value`: docs/statistics.md has the definition and the unit of every statistic.

        What was not measured has no row. A step with a row `nonfinite_block` had NaN or infinite gradients; it is left
        out of the means that are logged and drawn. A frozen block has a row of kind `state`, statistic `frozen`, in
        each epoch in which it was frozen, and none for gradients or updates; `n_steps` of kind `state` is the number of
        the epoch's optimizer steps, sampled or not.

    Raises:
        StoreError: The store does not exist, does not answer or cannot be asked.
        ArgumentError: The store knows no such run, or the run has no statistics.
        WorkError: The file cannot be fetched or is damaged.
    """
    from mlflow.tracking import MlflowClient, get_tracking_uri

    uri = absolute(tracking_uri or get_tracking_uri())
    _require_store(uri)
    with tempfile.TemporaryDirectory(prefix="mlflow-yolo-") as folder:
        return _with_global_step(read_table(_fetch(MlflowClient(tracking_uri=uri), run_id, redact(uri), folder)))


def _require_store(uri: str) -> None:
    """Raise where MLflow would create or migrate a store, or wait minutes for one."""
    path = sqlite_path(uri)
    if path is not None and not (path.exists() and path.stat().st_size):
        raise StoreError(f"{path} does not exist: give the tracking_uri that the run was logged to.")
    if not check_store(uri).reachable:
        raise StoreError(f"tracking server {redact(uri)} does not answer: start it, or give another tracking_uri.")


def _fetch(client: "MlflowClient", run_id: str, where: str, folder: str) -> Path:
    """Download the run's table into `folder` and return its path there."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise ArgumentError(
                f"run_id={run_id} is no run of {where}: look its id up there, or give another tracking_uri."
            ) from None
        raise StoreError(f"{where} cannot be asked for run {run_id}: {_one_line(error)}") from error
    name, path = f"{FOLDER}/{TABLE_FILE}", Path(folder) / TABLE_FILE
    try:
        known = any(found.path == name for found in client.list_artifacts(run_id, FOLDER))
        if known:
            # `download_artifacts` draws a progress bar, which only the environment of the whole process switches off.
            repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
            repository._download_file(name, str(path))
    except Exception as error:  # whatever the artifact store's own client raises
        raise WorkError(f"{name} of run {run_id} cannot be fetched: {_one_line(error)}. Try again.") from error
    if not known:
        raise ArgumentError(
            f"run {run_id} has no {name}: it was trained with statistics off, or a file still waits in its "
            "directory; then run: mlflow-yolo replay <directory>"
        )
    return path


def _with_global_step(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Insert `global_step` after `step`, missing from the first epoch on whose predecessors are not all known."""
    import pandas as pd

    told = frame[(frame["kind"] == "state") & (frame["statistic"] == "n_steps")]
    n_steps = told.groupby("epoch")["value"].max()
    before: dict[int, int] = {}
    total, expected = 0, None
    for epoch in sorted(frame["epoch"].unique()):
        if expected is not None and epoch != expected:
            break
        before[epoch] = total
        if epoch not in n_steps.index:
            break
        total, expected = total + int(n_steps[epoch]), epoch + 1
    offset = frame["epoch"].map(pd.Series(before, dtype="Int64")).astype("Int64")
    frame.insert(list(frame.columns).index("step") + 1, "global_step", offset + frame["step"])
    return frame


def _one_line(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:300]
