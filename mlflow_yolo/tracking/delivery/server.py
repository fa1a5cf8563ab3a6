"""One run at the MLflow server, fed so that one bad entry costs only itself.

Everything here blocks on the network and is called from the sender thread or from `replay`, never by the trainer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.datasets import dataset_input
from mlflow_yolo.tracking.delivery.journal import Record
from mlflow_yolo.tracking.stores.client import Undeliverable, is_rejection, one_line, undeliverable
from mlflow_yolo.tracking.stores.client import connect as connect
from mlflow_yolo.tracking.stores.client import load_mlflow as load_mlflow

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    Entity: TypeAlias = Metric | Param | RunTag

TAG_REJECTED = "mlflow_yolo.rejected"
_TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED"})


@dataclass
class ServerRun:
    """An existing run that records can be sent to.

    Attributes:
        client: A plain MLflow client.
        run_id: The server's id.
        rejected: What the server refused for good, one line each, oldest first.
    """

    client: "MlflowClient"
    run_id: str
    rejected: list[str] = field(default_factory=list)
    _params: dict[str, str] | None = None

    def send(self, records: Sequence[Record]) -> None:
        """Send metrics, params and tags in as few requests as MLflow's limits allow.

        Raises:
            Undeliverable: The server cannot be reached or the run does not accept anything.
        """
        n_rejected = len(self.rejected)
        params = self._new_params(records)
        entities: list[Entity] = [*_metrics(records), *params, *_tags(records)]
        if entities:
            self._deliver(entities)
        if len(self.rejected) > n_rejected:
            self._say_what_was_rejected()

    def send_file(self, path: Path, artifact_path: str) -> None:
        """Upload a file, or every file of a directory, below `artifact_path`. A file that is gone is rejected."""
        if not path.exists():
            self.reject(f"file {path.name}: no longer there")
            return
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            below = (Path(artifact_path) / file.relative_to(path.parent).parent).as_posix()
            # Singly: MLflow's own directory upload starts pool threads that interpreter exit would wait for.
            self._attempt(
                f"file {file.name}",
                lambda file=file, below=below: self.client.log_artifact(  # type: ignore[misc]
                    self.run_id, str(file), None if below == "." else below
                ),
            )

    def send_dataset(self, record: Record) -> None:
        """Log a dataset as input; logging the same one again changes nothing."""
        self._attempt(
            f"dataset {record.get('name')}",
            lambda: self.client.log_inputs(self.run_id, [dataset_input(record)]),
        )

    def finish(self, record: Record) -> None:
        """Set the final status, unless the record is a guess (`only_if_running`) that the server knows better."""
        if record.get("only_if_running") and self._status() in _TERMINAL:
            return
        if record.get("state"):
            self.send([{"type": "tags", "values": {keys.TAG_STATE: record["state"]}}])
        if record.get("terminate", True):
            self._attempt("status", lambda: _terminate(self.client, self.run_id, record["status"], int(record["t"])))

    def reopen(self) -> None:
        """Set a closed run to RUNNING again and take back what its tags said about its end."""
        run = self._get()
        if run.info.status in _TERMINAL:
            self._attempt("status", lambda: self.client.update_run(self.run_id, status="RUNNING"))
            if keys.TAG_STATE in run.data.tags:
                self._attempt("tag", lambda: self.client.delete_tag(self.run_id, keys.TAG_STATE))

    def reject(self, reason: str) -> None:
        """Remember, here and in a tag of the run, that something was given up."""
        self.rejected.append(reason)
        self._say_what_was_rejected()

    def _attempt(self, what: str, request: Callable[[], Any]) -> None:
        try:
            request()
        except Exception as error:
            if not is_rejection(error):
                raise undeliverable(error) from error
            self._raise_if_deleted()
            self.reject(f"{what}: {one_line(error)}")

    def _deliver(self, entities: "Sequence[Entity]") -> None:
        """Send `entities`; on a refusal halve them until the offending ones stand alone, and drop those."""
        from mlflow.entities import Metric, Param, RunTag

        try:
            self.client.log_batch(
                self.run_id,
                metrics=[e for e in entities if isinstance(e, Metric)],
                params=[e for e in entities if isinstance(e, Param)],
                tags=[e for e in entities if isinstance(e, RunTag)],
            )
        except Exception as error:
            if not is_rejection(error):
                raise undeliverable(error) from error
            self._raise_if_deleted()
            if len(entities) == 1:
                kind = type(entities[0]).__name__.removeprefix("Run").lower()
                self.rejected.append(f"{kind} {entities[0].key}: {one_line(error)}")
                return
            self._deliver(entities[: len(entities) // 2])
            self._deliver(entities[len(entities) // 2 :])

    def _new_params(self, records: Sequence[Record]) -> "list[Param]":
        """Return the params the run does not hold yet; one conflicting value would drop MLflow's whole batch."""
        from mlflow.entities import Param

        given = [item for r in records if r["type"] == "params" for item in r["values"].items()]
        if not given:
            return []
        if self._params is None:
            self._params = dict(self._get().data.params)
        new = []
        for key, value in given:
            if key not in self._params:
                self._params[key] = value
                new.append(Param(key, value))
            elif self._params[key] != value:
                self.rejected.append(f"param {key}: is {self._params[key]!r}, cannot become {value!r}")
        return new

    def _get(self) -> Any:
        try:
            return self.client.get_run(self.run_id)
        except Exception as error:
            raise undeliverable(error) from error

    def _status(self) -> str:
        return str(self._get().info.status)

    def _raise_if_deleted(self) -> None:
        if self._get().info.lifecycle_stage == "deleted":
            raise Undeliverable(
                f"run {self.run_id} was deleted at the server: restore it, or delete its journal if it is not wanted"
            )

    def _say_what_was_rejected(self) -> None:
        from mlflow.entities import RunTag

        text = f"{len(self.rejected)}: " + "; ".join(self.rejected[:5])
        try:
            self.client.log_batch(self.run_id, tags=[RunTag(TAG_REJECTED, text[:1000])])
        except Exception as error:
            if not is_rejection(error):
                raise undeliverable(error) from error


def _terminate(client: "MlflowClient", run_id: str, status: str, end_ms: int) -> None:
    """Set status and end time. `MlflowClient.set_terminated` would print "View run at" to stdout."""
    from mlflow.entities import RunStatus

    client._tracking_client.store.update_run_info(run_id, RunStatus.from_string(status), end_ms, None)


def _metrics(records: Iterable[Record]) -> "list[Metric]":
    from mlflow.entities import Metric

    return [
        Metric(key, float(value), int(r["t"]), int(r["step"]))
        for r in records
        if r["type"] == "metrics"
        for key, value in r["values"].items()
    ]


def _tags(records: Iterable[Record]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    merged = {key: value for r in records if r["type"] == "tags" for key, value in r["values"].items()}
    return [RunTag(key, value) for key, value in merged.items()]
