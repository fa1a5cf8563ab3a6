"""The few requests of a rollback, without MLflow's client: to import that takes two seconds, all of these 0.1.

Only for an MLflow server whose user, password or token stand in the environment; everything else goes through
`store.open_registry`.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.exceptions import StoreError
from mlflow_yolo.registry.store import denied

_TIMEOUTS_S = 3.0, 20.0
_OTHER_WAYS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE")
"""Settings of MLflow's client that say more than where the server is and who asks."""


class Refused(StoreError):
    """The server answered with an error.

    Attributes:
        error_code: MLflow's word for it.
    """

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class QuickClient:
    """The part of MLflow's client that `registry.champions` uses, by its names."""

    def __init__(self, uri: str) -> None:
        """Be ready to ask the server at `uri`."""
        import requests

        self._root = f"{uri.rstrip('/')}/api/2.0/mlflow"
        self._session = requests.Session()
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        self._session.verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not _is_insecure()

    def get_registered_model(self, name: str) -> Any:
        """Return a model's `tags` and `aliases`."""
        found = self._ask("GET", "registered-models/get", name=name)["registered_model"]
        aliases = {entry["alias"]: entry["version"] for entry in found.get("aliases", [])}
        return SimpleNamespace(tags=_pairs(found.get("tags", [])), aliases=aliases)

    def get_model_version(self, name: str, version: str) -> Any:
        """Return a version, if there is one."""
        return self._ask("GET", "model-versions/get", name=name, version=version)["model_version"]

    def get_run(self, run_id: str) -> Any:
        """Return a run's `info` and the params in its `data`."""
        run = self._ask("GET", "runs/get", run_id=run_id)["run"]
        params = _pairs(run.get("data", {}).get("params", []))
        return SimpleNamespace(info=SimpleNamespace(**run["info"]), data=SimpleNamespace(params=params))

    def log_param(self, run_id: str, key: str, value: str) -> None:
        """Write a param, which must not be there with another value."""
        self._ask("POST", "runs/log-parameter", run_id=run_id, key=key, value=value)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a run's tag."""
        self._ask("POST", "runs/set-tag", run_id=run_id, key=key, value=value)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias name a version."""
        self._ask("POST", "registered-models/alias", name=name, alias=alias, version=version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._ask("DELETE", "registered-models/alias", name=name, alias=alias)

    def _ask(self, method: str, path: str, **words: str) -> Any:
        import requests

        form: dict[str, Any] = {"params" if method == "GET" else "json": words}
        try:
            response = self._session.request(method, f"{self._root}/{path}", timeout=_TIMEOUTS_S, **form)
            refused = denied(response.status_code, response.text, "change the registry")
            content = response.json() if response.content and refused is None else {}
        except (requests.RequestException, ValueError) as error:
            raise Refused("", f"the registry does not answer as MLflow does: {type(error).__name__}.") from error
        if refused is not None:
            raise refused
        if response.status_code != 200:
            raise Refused(content.get("error_code", ""), f"the registry refuses: {content.get('message', '')[:300]}")
        return content


def quick_client(uri: str, name: str) -> QuickClient | None:
    """Return a client that is known to be able to read `name`, or None where MLflow's own is needed."""
    if not uri.startswith(("http://", "https://")) or "@" in uri or any(map(os.environ.get, _OTHER_WAYS)):
        return None
    if (Path.home() / ".mlflow" / "credentials").exists():
        return None
    client = QuickClient(uri)
    try:
        model = client.get_registered_model(name)
    except StoreError:
        return None  # MLflow's own says why
    return client if keys.TAG_HISTORY in model.tags else None


def _is_insecure() -> bool:
    return os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")


def _pairs(entries: list[dict[str, str]]) -> dict[str, str]:
    return {entry["key"]: entry.get("value", "") for entry in entries}
