"""An MLflow client for HTTP whose requests come to an end. Imports MLflow, so it is imported where it is used.

MLflow's own tries a request eight times: 244 s against a refused connection, some 20 minutes against a host that
accepts and never answers; its limits can only be set in the environment, for the whole process. Here a request is
made once: `SenderThread` decides when to try again, and the journal keeps what was not delivered. Nor is the global
`random` touched (MLflow's back-off draws its jitter there, Ultralytics its augmentation). Other clients in the process
keep MLflow's ways.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.protos.service_pb2 import CreateRun, LogBatch
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.request_utils import augmented_raise_for_status
from mlflow.utils.rest_utils import http_request, verify_rest_response
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 20.0
"""How long one request is waited for: 1000 values take a loaded server a second or two."""

SLOW_ANSWER_TIMEOUT_S = 120.0
"""The same for a file (the server passes it on to its store) and for creating a run, which must not happen twice."""


class OneTryStore(RestStore):
    """MLflow's REST store, making each request once."""

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log at most 1000 entries in one request, made without protocol buffers: a fifth of the processor time."""
        batch = {
            "run_id": run_id,
            "metrics": [
                {"key": m.key, "value": _number(m.value), "timestamp": m.timestamp, "step": m.step, **_linked(m)}
                for m in metrics
            ],
            "params": [{"key": param.key, "value": param.value} for param in params],
            "tags": [{"key": tag.key, "value": tag.value} for tag in tags],
        }
        self._call_endpoint(LogBatch, body=batch)

    def _call_endpoint(
        self,
        api: Any,
        json_body: str | None = None,
        endpoint: str | None = None,
        retry_timeout_seconds: int | None = None,
        response_proto: Any = None,
        body: Any = None,
    ) -> Any:
        routes = self._V3_METHOD_TO_INFO if api in self._V3_APIS else self._METHOD_TO_INFO
        self._validate_workspace_support_if_specified()
        path, method = routes[api]
        body = body if json_body is None else json.loads(json_body)
        response = http_request(
            self.get_host_creds(),
            endpoint or path,
            method,
            max_retries=0,
            backoff_jitter=0.0,
            timeout=(CONNECT_TIMEOUT_S, SLOW_ANSWER_TIMEOUT_S if api is CreateRun else ANSWER_TIMEOUT_S),
            raise_on_status=False,
            **{"params" if method == "GET" else "json": body},
        )
        verify_rest_response(response, endpoint or path)
        message = response_proto or api.Response()
        parse_dict(js_dict=json.loads(response.text), message=message)
        return message


class OneTryService(TrackingServiceClient):
    """MLflow's tracking client over a `OneTryStore`; it also uploads each file once."""

    def __init__(self, tracking_uri: str, store: OneTryStore) -> None:
        self._store = store
        super().__init__(tracking_uri)  # type: ignore[no-untyped-call]

    @property
    def store(self) -> OneTryStore:
        """The store that is asked."""
        return self._store

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool = True,
    ) -> None:
        """Log what fits MLflow's limits in one request, more in several."""
        n_texts = len(params) + len(tags)
        if not synchronous or max(len(params), len(tags)) > MAX_PARAMS_TAGS_PER_BATCH:
            super().log_batch(run_id, metrics, params, tags, synchronous)
            return
        n_first = MAX_METRICS_PER_BATCH - n_texts
        self.store.log_batch(run_id, metrics[:n_first], params, tags)
        for start in range(n_first, len(metrics), MAX_METRICS_PER_BATCH):
            self.store.log_batch(run_id, metrics[start : start + MAX_METRICS_PER_BATCH], (), ())

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
        """Upload one file. Stores other than the tracking server itself (S3, …) keep their own limits."""
        repository = self._get_artifact_repo(run_id)
        if not isinstance(repository, HttpArtifactRepository) or repository._should_multipart_upload(local_path):
            super().log_artifact(run_id, local_path, artifact_path)  # type: ignore[no-untyped-call]
            return
        name = Path(local_path).name
        with open(local_path, "rb") as file:
            response = http_request(
                repository._host_creds,
                f"/{artifact_path}/{name}" if artifact_path else f"/{name}",
                "PUT",
                max_retries=0,
                backoff_jitter=0.0,
                timeout=(CONNECT_TIMEOUT_S, SLOW_ANSWER_TIMEOUT_S),
                raise_on_status=False,
                data=file,
                extra_headers={"Content-Type": _guess_mime_type(name)},
            )
        augmented_raise_for_status(response)


def _linked(metric: Metric) -> dict[str, str]:
    """Return the logged model and the dataset that a metric belongs to, where it names some."""
    names = "model_id", "dataset_name", "dataset_digest"
    return {name: value for name in names if (value := getattr(metric, name, None))}


def _number(value: float) -> float | str:
    """Return `value` as the JSON of protocol buffers spells it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def make_each_request_once(client: MlflowClient) -> MlflowClient:
    """Return `client`, changed so; a client of Databricks, a database or a plugin's store is left as it is."""
    service = client._tracking_client
    if type(service.store) is RestStore:
        store = OneTryStore(service.store.get_host_creds)  # type: ignore[no-untyped-call]
        client._tracking_client = OneTryService(service.tracking_uri, store)
    return client
