"""Where a run goes: the store, the experiment, and the run that `mlflow run` may already have opened."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_yolo.tracking.stores.addresses import absolute

DEFAULT_URI = "sqlite:///mlflow.db"


@dataclass(frozen=True)
class Target:
    """Where a run goes.

    Attributes:
        tracking_uri: The store, absolute.
        experiment: The experiment's name, or None where its id is given.
        experiment_id: The experiment's id, or None.
        run_id: A run to adopt instead of opening one, or None.
        run_name: The run's name, or None.
    """

    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    run_id: str | None
    run_name: str | None

    @property
    def place_name(self) -> str:
        """The experiment as a study remembers it: its name, or its id where only that is known."""
        return self.experiment or ("Default" if self.experiment_id == "0" else f"id {self.experiment_id}")

    @property
    def place(self) -> dict[str, Any]:
        """Return what `open_run` needs to know of the store and the experiment."""
        return {
            "tracking_uri": self.tracking_uri,
            "experiment": self.experiment,
            "experiment_id": self.experiment_id,
        }


def resolve_uri(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the store: as given, else `MLFLOW_TRACKING_URI`, else MLflow's default `./mlflow.db`, made absolute."""
    return absolute(given or environment.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def resolve_target(
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Return where a run goes; what is not given comes from MLflow's own environment variables.

    Args:
        tracking_uri: Else `MLFLOW_TRACKING_URI`.
        experiment: Else `MLFLOW_EXPERIMENT_NAME`, else `MLFLOW_EXPERIMENT_ID`, else MLflow's `Default`.
        run_name: Else `MLFLOW_RUN_NAME` or Ultralytics' `MLFLOW_RUN`.
        environment: The environment; `MLFLOW_RUN_ID` names a run to adopt (set by `mlflow run`).
    """
    name = experiment or environment.get("MLFLOW_EXPERIMENT_NAME")
    experiment_id = None if name else environment.get("MLFLOW_EXPERIMENT_ID")
    return Target(
        tracking_uri=resolve_uri(tracking_uri, environment),
        experiment=name if name or experiment_id else "Default",
        experiment_id=experiment_id,
        run_id=environment.get("MLFLOW_RUN_ID"),
        run_name=run_name or environment.get("MLFLOW_RUN_NAME") or environment.get("MLFLOW_RUN"),
    )
