"""A registered model on Ray Serve: replicas and their number are Ray's, what each computes and answers is ours.

    details = create("cells", "models:/cells@champion-cpu", {"address": "auto", "max_replicas": "4"})
    predict("cells", [jpeg], details)
    delete("cells", details)

Each replica fetches the version itself, checks its digest and follows the alias. Another URI reaches the replicas that
run: each opens it beside the old one and swaps, as it does after a promotion.
"""

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import requests

from mlflow_yolo import __version__
from mlflow_yolo.deployment.targets.payload import payload
from mlflow_yolo.deployment.targets.processes import TOKEN
from mlflow_yolo.deployment.targets.ray_options import RayOptions, read_ray_options
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.ray_connection import connected, import_ray, passed_on
from mlflow_yolo.registry.address import ModelAddress, parse_model_uri
from mlflow_yolo.tracking.stores.addresses import absolute, with_password, without_password
from mlflow_yolo.tracking.stores.target import resolve_uri

_MODEL, _TRACKING, _URL = "model_uri", "tracking_uri", "url"
_REPLICA = "Replica"
_PAUSE_S = 0.3
_HTTP_S, _ASK_S, _PREDICT_S = 5.0, 20.0, 120.0
_HEAD = "node:__internal_head__"
_ANYWHERE = {"0.0.0.0", "::"}


def create(name: str, model_uri: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy a model and return when its replicas answer.

    Args:
        name: Serve's application, and its path unless `route` is given.
        model_uri: `models:/<name>@<alias>`, or a version's.
        config: Fields of `RayOptions`, as texts or numbers, and `tracking_uri`.

    Returns:
        What the other functions need to find it again; no password is in it.

    Raises:
        ArgumentError: No such version or cluster, an option is wrong, or the name is taken.
        StoreError: The registry does not answer.
        WorkError: The replicas did not start; nothing is left behind.
    """
    options, tracking_uri = _read(config)
    _version(model_uri, tracking_uri)
    with _serve(options.address) as serve:
        if name in serve.status().applications:
            raise ArgumentError(f"application {name!r} runs on the cluster already. Delete it, or take another name.")
        serve.start(proxy_location="EveryNode", http_options={"host": options.host, "port": options.port})
        try:
            _deploy(serve, name, model_uri, options, tracking_uri)
            _wait(serve, name, options.wait_s)
        except BaseException:
            with suppress(Exception):
                serve.delete(name)
            raise
        return _details(name, model_uri, options, tracking_uri)


def update(name: str, model_uri: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    """Let a deployment serve another model, or otherwise, without dropping a request.

    Another model is opened beside the old one in each replica, and the numbers of replicas are Serve's to reach; other
    settings let Serve replace the replicas one after the other.

    Args:
        name: The application.
        model_uri: Another model; None for the one that it has.
        config: What `create` or `update` returned, changed where it shall change.

    Raises:
        ArgumentError: As `create`, or there is no such application.
        WorkError: The new model cannot be served: the old one goes on. Or the replicas did not start.
    """
    options, tracking_uri = _read(config)
    before, wanted = str(config[_MODEL]), model_uri or str(config[_MODEL])
    version = _version(wanted, tracking_uri)
    with _serve(options.address) as serve:
        _check_running(serve, name)
        known_error = _told(config[_URL]).get("error")
        _deploy(serve, name, wanted, options, tracking_uri)
        _wait(serve, name, options.wait_s)
        details = _details(name, wanted, options, tracking_uri)
        if why := _why_not_served(details[_URL], wanted, version, known_error, options.wait_s):
            _deploy(serve, name, before, options, tracking_uri)
            raise WorkError(f"{wanted} is not served: {why}. {before} goes on.")
        return details


def get(name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a deployment is: its status as Serve calls it, replicas, address, and the version that is served."""
    state: dict[str, Any] = {"status": "gone", "replicas": 0, "address": details[_URL], "cluster": details["address"]}
    try:
        with _serve(str(details["address"])) as serve:
            application = serve.status().applications.get(name)
            if application is None:
                return state
            states = application.deployments[_REPLICA].replica_states if application.deployments else {}
            told = _told(details[_URL])
    except ArgumentError as error:
        return state | {"status": "not answering", "error": str(error)}
    return state | {
        "status": str(application.status.value).lower(),
        "replicas": int(states.get("RUNNING", 0)),
        "version": told.get("version"),
        "sha256": told.get("sha256"),
        "error": told.get("error") or application.message or None,
    }


def predict(name: str, inputs: Any, details: Mapping[str, Any]) -> Any:
    """Return the predictions for images.

    Args:
        name: The application.
        inputs: See `payload`.
        details: What `create` or `update` returned.

    Raises:
        ArgumentError: The inputs are no images.
        WorkError: Nobody answers at the deployment's address.
        requests.HTTPError: The server refuses.
    """
    url = f"{details[_URL]}/invocations"
    with _session(os.environ.get(TOKEN)) as session:
        try:
            answer = session.post(url, json=payload(inputs), timeout=_PREDICT_S)
        except requests.ConnectionError:
            raise WorkError(
                f"nobody answers at {url}. Ask from a machine of the cluster, or create {name} with host=0.0.0.0."
            ) from None
    answer.raise_for_status()
    return answer.json()["predictions"]


def delete(name: str, details: Mapping[str, Any]) -> None:
    """Delete an application, after its replicas have answered what they have begun; one that is gone is no error.

    Serve itself goes on: other applications may be its. A cluster that does not answer is no error either, since it may
    be gone with all that ran there; a note says so.
    """
    try:
        with _serve(str(details["address"])) as serve:
            if name in serve.status().applications:
                serve.delete(name)
    except ArgumentError as error:
        print(f"note: {name} is left to its cluster: {error}", file=sys.stderr)


def _read(config: Mapping[str, Any]) -> tuple[RayOptions, str]:
    """Return the options and the tracking URI, with its password where the environment has it."""
    known = {_MODEL, _TRACKING, _URL}
    options = read_ray_options({key: value for key, value in config.items() if key not in known})
    return options, absolute(with_password(resolve_uri(config.get(_TRACKING))))


def _version(model_uri: str, tracking_uri: str) -> str:
    """Return the version that a URI names now; the nodes of a cluster see no folder of this machine."""
    from mlflow_yolo.registry.fetching import resolve
    from mlflow_yolo.registry.store import open_registry

    address: ModelAddress = parse_model_uri(model_uri)
    return str(resolve(open_registry(tracking_uri), address).version)


@contextmanager
def _serve(address: str) -> Iterator[Any]:
    """Connect to a cluster and yield Ray Serve's functions, quiet."""
    import_ray("backend=ray")
    with connected(address):
        from ray import serve

        logger = logging.getLogger("ray.serve")
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield serve
        finally:
            logger.setLevel(before)


def _deploy(serve: Any, name: str, model_uri: str, options: RayOptions, tracking_uri: str) -> None:
    """Tell Serve what shall run; what runs already and needs no other process is kept."""
    from mlflow_yolo.deployment.targets.ray_replica import MODEL_URI, Replica, ReplicaSettings

    settings = ReplicaSettings(
        tracking_uri=tracking_uri,
        poll_s=options.poll_s,
        engine={
            "workers": options.workers,
            "threads": options.threads,
            "max_queue": options.max_queue,
            "timeout_s": options.timeout_s,
        },
        environment=passed_on(os.environ),
        token=os.environ.get(TOKEN),
    )
    replicas = serve.deployment(serve.ingress()(Replica)).options(
        name=_REPLICA,
        user_config={MODEL_URI: model_uri},
        ray_actor_options={"num_cpus": options.num_cpus},
        max_ongoing_requests=options.workers + options.max_queue,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.target_ongoing_requests,
        },
        # Without a version of ours, Serve would make one up and start every replica anew for each change of the model.
        version=_digest(settings),
        _internal=True,
    )
    target = serve.RunTarget(replicas.bind(settings), name=name, route_prefix=options.route or f"/{name}")
    serve.run_many([target], wait_for_applications_running=False)


def _digest(settings: Any) -> str:
    text = json.dumps([__version__, asdict(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _wait(serve: Any, name: str, wait_s: float) -> None:
    """Return when an application runs as it was told.

    Raises:
        WorkError: It cannot, or it takes too long.
    """
    end = time.monotonic() + wait_s
    while True:
        application = serve.status().applications[name]
        status = application.status.value
        if status == "RUNNING":
            return
        messages = [one.message for one in application.deployments.values()] + [application.message]
        why = next((_last_line(text) for text in messages if text), "Serve gives no reason").rstrip(".")
        if status == "DEPLOY_FAILED":
            raise WorkError(f"{name} cannot be served on the cluster: {why}.")
        if time.monotonic() > end:
            raise WorkError(f"{name} is {status.lower()} after {wait_s:g} s: {why}. Set wait_s, or add nodes.")
        time.sleep(_PAUSE_S)


def _why_not_served(url: str, model_uri: str, version: str, known_error: str | None, wait_s: float) -> str:
    """Wait until a replica serves what it was told to; return why it does not, empty where it does."""
    wanted = (version, parse_model_uri(model_uri).alias)
    end, error = time.monotonic() + wait_s, ""
    while time.monotonic() < end:
        told = _told(url)
        error = str(told.get("error") or "")
        if (told.get("version"), told.get("alias")) == wanted and not error:
            return ""
        if error and error != known_error:
            break
        time.sleep(_PAUSE_S)
    return (error or "not in time").rstrip(".")


def _told(url: str) -> dict[str, Any]:
    """Return what one of the replicas tells of itself; nothing where none answers.

    A task on the head asks, which sees the proxies wherever they listen. Serve's own handles are no help: their threads
    outlive the connection, and make another one.
    """
    ray = import_ray("backend=ray")
    ask = ray.remote(num_cpus=0, resources={_HEAD: 0.001}, max_retries=0)(ask_version)
    try:
        told: dict[str, Any] = ray.get(ask.remote(url, os.environ.get(TOKEN)), timeout=_ASK_S)
    except ray.exceptions.RayError:
        return {}
    return told


def ask_version(url: str, token: str | None) -> dict[str, Any]:
    """Return what a deployment's `/version` answers, nothing where nobody does; done by a node of the cluster."""
    with suppress(requests.RequestException, ValueError), _session(token) as session:
        answer = session.get(f"{url}/version", timeout=_HTTP_S)
        told: dict[str, Any] = answer.json() if answer.ok else {}
        return told
    return {}


def _session(token: str | None) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy does not know the cluster's machines
    session.headers.update({"Authorization": f"Bearer {token}"} if token else {})
    return session


def _check_running(serve: Any, name: str) -> None:
    if name not in serve.status().applications:
        raise ArgumentError(
            f"there is no application {name!r} on the cluster. Delete the deployment and create it anew."
        )


def _details(name: str, model_uri: str, options: RayOptions, tracking_uri: str) -> dict[str, Any]:
    kept = {_MODEL: model_uri, _TRACKING: without_password(tracking_uri)}
    return {**asdict(options), **kept, _URL: f"{_root_url()}{(options.route or f'/{name}').rstrip('/')}"}


def _root_url() -> str:
    """Return where Serve's proxies listen: what the first deployment of the cluster has asked for."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None
    http = client.http_config
    host = _head_ip() if http.host in _ANYWHERE else http.host
    return f"http://[{host}]:{http.port}" if ":" in host else f"http://{host}:{http.port}"


def _head_ip() -> str:
    nodes = import_ray("backend=ray").nodes()
    return next(str(node["NodeManagerAddress"]) for node in nodes if node["Alive"] and _HEAD in node["Resources"])


def _last_line(text: str) -> str:
    """Return what a traceback in Serve's words ends with."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("mlflow_yolo.exceptions.")]
    return (ours or lines)[-1].removeprefix("mlflow_yolo.exceptions.")
