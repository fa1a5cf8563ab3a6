"""A registry client for HTTP whose requests come to an end. Imports MLflow, so it is imported where it is used.

As `tracking.stores.http_client` does for runs: MLflow's own tries a request eight times, for four minutes where nobody
listens. A server that follows an alias, and a user who rolls back, want to know at once.
"""

import json
from functools import partial
from typing import Any

from mlflow.protos.model_registry_pb2 import CreateModelVersion, CreateRegisteredModel
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.tracking import MlflowClient
from mlflow.tracking._model_registry.client import ModelRegistryClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_yolo.tracking.stores.http_client import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, SLOW_ANSWER_TIMEOUT_S

_CREATES = (CreateModelVersion, CreateRegisteredModel)


class OneTryRegistry(RestStore):
    """MLflow's REST store of the registry, making each request once."""

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, call_all_endpoints: bool = False, extra_headers: Any = None
    ) -> Any:
        if call_all_endpoints:  # of the retired stages
            return super()._call_endpoint(api, json_body, call_all_endpoints, extra_headers)  # type: ignore[no-untyped-call]
        self._validate_workspace_support_if_specified()
        path, method = self._get_endpoint_from_method(api)  # type: ignore[no-untyped-call]
        response = http_request(
            self.get_host_creds(),
            path,
            method,
            max_retries=0,
            backoff_jitter=0.0,
            timeout=(CONNECT_TIMEOUT_S, SLOW_ANSWER_TIMEOUT_S if api in _CREATES else ANSWER_TIMEOUT_S),
            raise_on_status=False,
            extra_headers=extra_headers,
            **{"params" if method == "GET" else "json": json.loads(json_body) if json_body else None},
        )
        verify_rest_response(response, path)
        message = self._get_response_from_method(api)  # type: ignore[no-untyped-call]
        parse_dict(js_dict=json.loads(response.text), message=message)
        return message


class OneTryRegistryClient(ModelRegistryClient):
    """MLflow's registry client over a `OneTryRegistry`."""

    def __init__(self, registry_uri: str, tracking_uri: str) -> None:
        self._store = OneTryRegistry(partial(get_default_host_creds, registry_uri))  # type: ignore[no-untyped-call]
        super().__init__(registry_uri, tracking_uri)  # type: ignore[no-untyped-call]

    @property
    def store(self) -> OneTryRegistry:
        """The store that is asked."""
        return self._store


def make_each_registry_request_once(client: MlflowClient) -> MlflowClient:
    """Return `client`, changed so; a client of Databricks or of a plugin's registry is left as it is."""
    registry = client._get_registry_client()
    if type(registry.store) is RestStore:
        once = OneTryRegistryClient(registry.registry_uri, registry.tracking_uri)
        client._registry_client_lazy = once  # type: ignore[attr-defined]
    return client
