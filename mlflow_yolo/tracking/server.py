"""One run at the MLflow server: found or created by its uid, and fed so that one bad entry costs only itself.

Everything here blocks on the network and is called from the sender thread or from `replay`, never by the trainer.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow_yolo import keys
from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.tracking.addresses import redact, sqlite_path
from mlflow_yolo.tracking.datasets import dataset_input
from mlflow_yolo.tracking.journal import Record

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    Entity: TypeAlias = Metric | Param | RunTag

ClientFactory = Callable[[str], "MlflowClient"]

TAG_REJECTED = "mlflow_yolo.rejected"
_REJECTED_STATUSES = frozenset({400, 409, 413, 422})
_STATUS_IN_TEXT = re.compile(r"error code (\d{3})")
_GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""How MLflow names a run that nobody named: `smiling-ant-866`."""
_TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED"})


class Undeliverable(WorkError):
    """The server cannot take records now; what is journaled stays journaled."""


def load_mlflow() -> None:
    """Import MLflow here and now.

    It must not be imported first by a background thread: while that lasts (some seconds), an `import mlflow` of the
    training's own thread can see a half-made module and fail ("partially initialized module 'mlflow'"; seen in 1 of 24
    starts), and Ultralytics or the user's code is what fails with it.
    """
    import mlflow.entities
    import mlflow.tracking  # noqa: F401


def connect(uri: str) -> "MlflowClient":
    """Return a client of the store at `uri`; a missing SQLite store is created first."""
    from mlflow.tracking import MlflowClient

    from mlflow_yolo.tracking.store import ensure_store

    if sqlite_path(uri) is not None:
        ensure_store(uri)
    return MlflowClient(tracking_uri=uri)


def is_rejection(error: Exception) -> bool:
    """Return whether the server understood the request and refuses its content, so that trying again is useless."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        in_text = _STATUS_IN_TEXT.search(str(error))
        return (int(in_text[1]) if in_text else error.get_http_status_code()) in _REJECTED_STATUSES
    return isinstance(error, TypeError | ValueError) and not isinstance(error, UnicodeError)


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
            self.reject(f"{what}: {_one_line(error)}")

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
                self.rejected.append(f"{kind} {entities[0].key}: {_one_line(error)}")
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


def undeliverable(error: Exception) -> Undeliverable:
    """Return what stops delivery now, in one line without passwords."""
    return Undeliverable(f"the tracking store refuses: {_one_line(error)}")


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
    run = client.create_run(experiment_id, start_time=int(opening["t"]), tags=tags, run_name=opening.get("name"))
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


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"\w+://\S+", lambda m: redact(m[0]), text)[:300]
