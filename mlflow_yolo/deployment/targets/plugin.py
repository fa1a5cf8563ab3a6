"""MLflow's deployment target `yolo`: `mlflow deployments create -t yolo --name cells -m models:/cells@champion-cpu`.

Four backends: `process` runs our own server in the background, `ray` puts it on Ray Serve, `triton` and `kserve` write
configuration for others. MLflow finds this module by its entry point `mlflow.deployments`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import requests
from mlflow.deployments import PredictionsResponse
from mlflow.deployments.base import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from mlflow_yolo.deployment.targets import deployments, processes
from mlflow_yolo.deployment.targets.deployments import Deployment
from mlflow_yolo.deployment.targets.payload import payload
from mlflow_yolo.exceptions import ArgumentError, InputError, MlflowYoloError
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.client import one_line
from mlflow_yolo.tracking.stores.target import resolve_uri

BACKENDS = ("process", "ray", "triton", "kserve")
_PREDICT_S = 120.0

_HELP = """\
Target: yolo

  mlflow deployments create -t yolo --name cells -m models:/cells@champion-cpu -C port=8080 -C threads=1

-m takes models:/<name>@<alias>, whose alias is followed, models:/<name>/<version>, or a variant's folder.

-C backend=process (default): the server of `mlflow-yolo serve` in the background of this machine.
  port, host      where it listens [a free port, 127.0.0.1]
  wait_s          seconds until it has to answer [120]
  tracking_uri    where models:/… is looked up [MLFLOW_TRACKING_URI]; its password is taken from that variable only
  any other name  the option of `mlflow-yolo serve` of that name, for example -C workers=2 -C shadow=challenger-cpu
  update -m …     swaps the model in the running server; no request is dropped
  update -C …     starts the server anew: for some seconds nobody answers
  A token for the server and for predict: the environment variable MLFLOW_YOLO_TOKEN.

-C backend=ray: replicas on Ray Serve; needs the extra ray.

-C backend=triton -C output=DIR: a Triton model repository with the model's bytes and config.pbtxt.
-C backend=kserve -C output=DIR: an InferenceService; also runtime (mlflow, triton), storage_uri, canary_percent,
  namespace. Both are written, not run: nothing is deployed, and list does not know them.
"""


class DeploymentError(MlflowException, click.ClickException):  # type: ignore[misc]  # one `message`
    """What went wrong, in one line: MLflow's own error for programs, and one that its command line prints as a line."""


class YoloDeploymentClient(BaseDeploymentClient):
    """Manages deployments of variants; see `target_help` for the settings."""

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy a model and return when it answers; a name can be taken once.

        Returns:
            What `get_deployment` returns; for `triton` and `kserve` the files that were written.
        """
        with _as_mlflow():
            _check(flavor, endpoint)
            settings = _texts(config)
            backend = _backend_of(settings)
            if backend in ("triton", "kserve"):
                from mlflow_yolo.deployment.targets import static

                files = static.generate(backend, name, model_uri, settings, tracking_uri=resolve_uri(None))
                written = [str(file) for file in files]
                return {
                    "name": name,
                    "flavor": "yolo",
                    "backend": backend,
                    "status": "written, not run",
                    "files": written,
                }
            tracking_uri = resolve_uri(settings.pop("tracking_uri", None))
            if backend == "ray":
                return _create_on_ray(name, model_uri, settings, tracking_uri)
            return processes.describe(processes.create(name, model_uri, settings, tracking_uri=tracking_uri))

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Let a deployment serve another model, or otherwise; return what `get_deployment` returns."""
        with _as_mlflow():
            _check(flavor, endpoint)
            settings = _texts(config)
            known = deployments.known(name)
            if settings.pop("backend", known.backend) != known.backend:
                raise ArgumentError(f"deployment {name!r} is on {known.backend}. Delete it and create it anew.")
            if known.backend == "ray":
                return _update_on_ray(known, model_uri, settings)
            return processes.describe(processes.update(name, model_uri, settings))

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """End a deployment; one that is not there is no error."""
        with _as_mlflow():
            _check(None, endpoint)
            known = deployments.read(deployments.folder_of(name))
            if known is not None and known.backend == "ray":
                from mlflow_yolo.deployment.targets import ray_serve

                ray_serve.delete(name, known.details)
            processes.delete(name)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return what `get_deployment` returns, for all of them."""
        with _as_mlflow():
            _check(None, endpoint)
            return [_state(deployments.known(name)) for name in deployments.names()]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return name, status, address, model and the version that is served at this moment."""
        with _as_mlflow():
            _check(None, endpoint)
            return _state(deployments.known(name))

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Return the predictions of a deployment.

        Args:
            deployment_name: Its name.
            inputs: A DataFrame with a column of image bytes or base64, a body of MLflow's scoring protocol, image
                bytes, an array (H, W, 3), or a list of either.
            endpoint: There are none.
        """
        with _as_mlflow():
            _check(None, endpoint)
            known = deployments.known(deployment_name or "")
            if known.backend == "ray":
                from mlflow_yolo.deployment.targets import ray_serve

                return PredictionsResponse({"predictions": ray_serve.predict(known.name, inputs, known.details)})
            body = payload(inputs)
            return PredictionsResponse(processes.ask(known, "/invocations", body, timeout_s=_PREDICT_S))


def run_local(
    target: str, name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None
) -> None:
    """Serve a model in the foreground until it is interrupted; no deployment is made of it."""
    with _as_mlflow():
        _check(flavor, None)
        settings = _texts(config)
        if (backend := _backend_of(settings)) != "process":
            raise ArgumentError(f"backend={backend} does not run locally. Leave it out.")
        tracking_uri = resolve_uri(settings.pop("tracking_uri", None))
        if code := processes.run_here(name, model_uri, settings, tracking_uri=tracking_uri):
            raise ArgumentError(f"the server ended with code {code}; its own words are above.")


def target_help() -> str:
    """Return what `mlflow deployments help -t yolo` shows."""
    return _HELP


@contextmanager
def _as_mlflow() -> Iterator[None]:
    """Turn our errors, and those of asking a server, into MLflow's."""
    try:
        yield
    except MlflowYoloError as error:
        code = INVALID_PARAMETER_VALUE if isinstance(error, InputError) else INTERNAL_ERROR
        raise DeploymentError(str(error), error_code=code) from error
    except requests.HTTPError as error:
        raise DeploymentError(_refusal(error), error_code=INTERNAL_ERROR) from error
    except requests.RequestException as error:
        line = f"the server does not answer: {one_line(error)} See its log, or delete the deployment."
        raise DeploymentError(line, error_code=INTERNAL_ERROR) from error


def _refusal(error: requests.HTTPError) -> str:
    """Return why the server refused, in its own words."""
    assert error.response is not None
    try:
        reason = error.response.json()["message"]
    except (ValueError, KeyError, TypeError):
        reason = error.response.reason
    token = f" Set {processes.TOKEN}." if error.response.status_code == 401 else ""
    return f"the server refuses ({error.response.status_code}): {reason}{token}"


def _check(flavor: str | None, endpoint: str | None) -> None:
    if flavor not in (None, "yolo"):
        raise ArgumentError(f"flavor={flavor} is not served here. Leave it out: what is served is yolo.")
    if endpoint is not None:
        raise ArgumentError(f"endpoint={endpoint}: this target has no endpoints. Leave it out.")


def _texts(config: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (config or {}).items()}


def _backend_of(settings: dict[str, str]) -> str:
    """Take the backend out of the settings."""
    backend = settings.pop("backend", "process")
    if backend not in BACKENDS:
        raise ArgumentError(f"backend={backend} is not known. Use {', '.join(BACKENDS)}.")
    return backend


def _state(known: Deployment) -> dict[str, Any]:
    if known.backend != "ray":
        return processes.describe(known)
    from mlflow_yolo.deployment.targets import ray_serve

    about = {"name": known.name, "flavor": "yolo", "backend": "ray", "model_uri": known.model_uri}
    return {**about, **ray_serve.get(known.name, known.details)}


def _create_on_ray(name: str, model_uri: str, settings: dict[str, str], tracking_uri: str) -> dict[str, Any]:
    from mlflow_yolo.deployment.targets import ray_serve

    with deployments.held(name) as folder:
        if deployments.read(folder) is not None:
            raise ArgumentError(f"deployment {name!r} exists already. Update or delete it, or choose another name.")
        details = ray_serve.create(name, model_uri, {**settings, "tracking_uri": tracking_uri})
        known = Deployment(
            name, model_uri, without_password(tracking_uri), backend="ray", config=settings, details=details
        )
        deployments.write(folder, known)
    return _state(known)


def _update_on_ray(known: Deployment, model_uri: str | None, settings: dict[str, str]) -> dict[str, Any]:
    from dataclasses import replace

    from mlflow_yolo.deployment.targets import ray_serve

    with deployments.held(known.name) as folder:
        details = ray_serve.update(known.name, model_uri, {**known.details, **settings})
        changed = replace(
            known, model_uri=model_uri or known.model_uri, config={**known.config, **settings}, details=details
        )
        deployments.write(folder, changed)
    return _state(changed)
