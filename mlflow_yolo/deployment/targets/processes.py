"""Deployments as processes of this machine: started, asked, updated, ended.

deployment = create("cells", "models:/cells@champion-cpu", {"threads": "1"}, tracking_uri=…)
deployment.address          # http://127.0.0.1:43817
delete("cells")
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import requests

from mlflow_yolo.deployment.targets.deployments import (
    LOG,
    URI,
    Deployment,
    folder_of,
    held,
    known,
    read,
    write,
    write_text,
)
from mlflow_yolo.deployment.targets.ports import check_free, free_port, is_free
from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.registry.address import is_model_uri, parse_model_uri
from mlflow_yolo.runtime.description import describe as describe_file
from mlflow_yolo.tracking.stores.addresses import with_password, without_password

TOKEN = "MLFLOW_YOLO_TOKEN"
"""Environment variable with the server's bearer token; it is written nowhere."""

SERVE = (sys.executable, "-m", "mlflow_yolo", "serve")
"""The program that serves."""

OURS = ("host", "port", "wait_s")
"""Settings that are not the server's own."""

_BIRTH_TOLERANCE_S = 2.0  # the clock may be set while a process lives
_WAIT_S = 120.0
_GRACE_S = 70.0
"""How long a server may take to answer what is in flight; `serve` itself gives up after about a minute."""
_HTTP_S = 10.0
_ATTEMPTS = 3
"""Times that another free port is looked for, where somebody takes it before the server does."""


def create(
    name: str,
    model_uri: str,
    config: Mapping[str, str],
    *,
    tracking_uri: str,
    root: Path | None = None,
    program: Sequence[str] = SERVE,
) -> Deployment:
    """Start a server in the background and return when it answers.

    Args:
        name: See `folder_of`.
        model_uri: What to serve.
        config: `host` (127.0.0.1), `port` (a free one), `wait_s` (120), and any option of `serve` by its name.
        tracking_uri: Where `models:/…` is looked up.
        root: Folder of the deployments; None for the user's.
        program: The server.

    Raises:
        ArgumentError: The name cannot be used or is taken, a setting is wrong, or the model cannot be served; nothing
            is left behind.
        WorkError: The server did not answer in time; nothing is left behind.
    """
    deployment = _new(name, model_uri, config, tracking_uri)
    wait_s = _wait_s(config)
    with held(name, root=root) as folder:
        if (taken := read(folder)) is not None:
            state = "exists already" if taken.backend != "process" or process_of(taken) else "has ended, but is known"
            raise ArgumentError(f"deployment {name!r} {state}. Update or delete it, or choose another name.")
        try:
            return _start(folder, deployment, wait_s=wait_s, program=program)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def update(
    name: str,
    model_uri: str | None,
    config: Mapping[str, str],
    *,
    root: Path | None = None,
    program: Sequence[str] = SERVE,
) -> Deployment:
    """Let a deployment serve another model, or serve it otherwise; return when it does.

    The running server reads another model's URI from a file, opens and warms the model and then swaps: no request is
    dropped, and a model that cannot be served changes nothing. Other settings need another process, which the old one
    makes room for: for these seconds nobody answers.

    Raises:
        ArgumentError: There is no such deployment, or a setting or the model is wrong.
        WorkError: The new model is not served; the old one goes on.
    """
    with held(name, root=root) as folder:
        now = known(name, root=root)
        if "host" in config or "port" in config:
            raise ArgumentError("the address of a deployment cannot be changed. Delete it and create it anew.")
        settings = {key: str(value) for key, value in config.items() if key not in OURS}
        changed = replace(now, config={**now.config, **settings}, model_uri=_absolute(model_uri or now.model_uri))
        if changed.config != now.config or process_of(now) is None:
            return _restart(folder, now, changed, wait_s=_wait_s(config), program=program)
        if changed != now:
            _swap(folder, now, changed, wait_s=_wait_s(config))
        return changed


def delete(name: str, *, root: Path | None = None, grace_s: float = _GRACE_S) -> None:
    """End a server, which still answers what it has begun, and forget it; where there is none, nothing happens."""
    with held(name, root=root) as folder:
        if (deployment := read(folder)) is not None:
            _end(deployment, grace_s=grace_s)
        shutil.rmtree(folder, ignore_errors=True)


def describe(deployment: Deployment, *, root: Path | None = None) -> dict[str, Any]:
    """Return how a deployment is: name, status, address, model, and the version that it serves at this moment.

    `status` is `running`, `not answering` or `stopped`; what only the server knows is None unless it answers.
    """
    process = process_of(deployment)
    answers = process is not None and _answers(deployment)
    told: dict[str, Any] = {}
    with contextlib.suppress(requests.RequestException, ValueError):
        told = ask(deployment, "/version") if answers else {}
    return {
        "name": deployment.name,
        "flavor": "yolo",
        "backend": deployment.backend,
        "status": "stopped" if process is None else "running" if answers else "not answering",
        "address": deployment.address,
        "model_uri": deployment.model_uri,
        "version": told.get("version"),
        "sha256": told.get("sha256"),
        "error": told.get("error") or None,
        "pid": deployment.pid if process is not None else None,
        "config": dict(deployment.config),
        "log": str(folder_of(deployment.name, root=root) / LOG),
    }


def ask(deployment: Deployment, path: str, content: Any = None, *, timeout_s: float = _HTTP_S) -> dict[str, Any]:
    """Return what the server answers to a GET, or to a POST of `content` as JSON.

    Raises:
        requests.RequestException: It does not answer, or refuses.
    """
    token = os.environ.get(TOKEN)
    with requests.Session() as session:
        session.trust_env = False  # a proxy does not know this machine's servers
        answer = session.request(
            "GET" if content is None else "POST",
            deployment.address + path,
            json=content,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
        )
    answer.raise_for_status()
    return dict(answer.json())


def process_of(deployment: Deployment) -> psutil.Process | None:
    """Return the server's process; None where it is gone, also where its number is another process' by now."""
    try:
        process = psutil.Process(deployment.pid) if deployment.pid else None
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process if abs(process.create_time() - deployment.born) < _BIRTH_TOLERANCE_S else None
    except psutil.Error:
        return None


def _new(name: str, model_uri: str, config: Mapping[str, str], tracking_uri: str) -> Deployment:
    return Deployment(
        name=name,
        model_uri=_absolute(model_uri),
        tracking_uri=without_password(tracking_uri),
        host=str(config.get("host", "127.0.0.1")),
        port=_port(config),
        config={key: str(value) for key, value in config.items() if key not in OURS},
    )


def _start(folder: Path, deployment: Deployment, *, wait_s: float, program: Sequence[str]) -> Deployment:
    """Start a deployment's server, wait until it answers and return the deployment with its process."""
    deadline = time.monotonic() + wait_s
    for left in reversed(range(_ATTEMPTS)):
        port = deployment.port or free_port(deployment.host)
        check_free(deployment.host, port)
        try:
            return _started(folder, replace(deployment, port=port), deadline, program)
        except ArgumentError:
            if deployment.port or not left or is_free(deployment.host, port):
                raise
    raise AssertionError("the last attempt returns or raises")


def _started(folder: Path, deployment: Deployment, deadline: float, program: Sequence[str]) -> Deployment:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / URI, deployment.model_uri + "\n")
    with (folder / LOG).open("wb") as log:
        server = subprocess.Popen(
            [*program, *_words(deployment), "--uri-file", str(folder / URI)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,  # it outlives the terminal
            env=_environment(deployment),
        )
    running = deployment
    try:
        with contextlib.suppress(psutil.NoSuchProcess):
            running = replace(deployment, pid=server.pid, born=psutil.Process(server.pid).create_time())
        write(folder, running)
        _wait_for(server, running, deadline, folder / LOG)
    except BaseException:
        _end(running, grace_s=2.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(2.0)
        raise
    # It is not ours to wait for: without this, Python warns of a child that still runs.
    server.returncode = 0
    return running


def run_here(name: str, model_uri: str, config: Mapping[str, str], *, tracking_uri: str) -> int:
    """Serve in the foreground until the server ends; return its exit code."""
    deployment = _new(name, model_uri, config, tracking_uri)
    port = deployment.port or free_port(deployment.host)
    check_free(deployment.host, port)
    with subprocess.Popen([*SERVE, *_words(replace(deployment, port=port))], env=_environment(deployment)) as server:
        while True:
            # Ctrl-C reaches the server too, which then ends by itself.
            with contextlib.suppress(KeyboardInterrupt):
                return server.wait()


def _words(deployment: Deployment) -> list[str]:
    words = [deployment.model_uri, "--host", deployment.host, "--port", str(deployment.port)]
    return words + [word for key, value in deployment.config.items() for word in (f"--{key.replace('_', '-')}", value)]


def _environment(deployment: Deployment) -> dict[str, str]:
    uri = with_password(deployment.tracking_uri)
    return {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONUNBUFFERED": "1"}


def _wait_for(server: "subprocess.Popen[bytes]", deployment: Deployment, deadline: float, log: Path) -> None:
    """Return when the server answers.

    Raises:
        ArgumentError: It has ended instead; what it said last is the reason.
        WorkError: It takes too long.
    """
    while not _answers(deployment):
        if (code := server.poll()) is not None:
            raise ArgumentError(_last_line(log) or f"the server ended with code {code} and said nothing.")
        if time.monotonic() > deadline:
            said = _last_line(log)
            raise WorkError(f"the server did not answer in time{f' ({said})' if said else ''}. Set wait_s to more.")
        time.sleep(0.1)


def _answers(deployment: Deployment) -> bool:
    try:
        ask(deployment, "/ping")
    except (requests.RequestException, ValueError):
        return False
    return True


def _swap(folder: Path, now: Deployment, changed: Deployment, *, wait_s: float) -> None:
    """Write the new model's URI where the server reads it, and wait until it serves that model."""
    wanted = _expected(changed)
    write_text(folder / URI, changed.model_uri + "\n")
    deadline, error = time.monotonic() + wait_s, ""
    told: dict[str, str | None] = {}
    while time.monotonic() < deadline and process_of(now) is not None and wanted.items() - told.items():
        time.sleep(0.1)
        with contextlib.suppress(requests.RequestException, ValueError):
            told = {key: value for key, value in ask(now, "/version").items() if isinstance(value, str | None)}
            error = told.get("error") or error
    if wanted.items() - told.items():
        write_text(folder / URI, now.model_uri + "\n")
        raise WorkError(f"{changed.model_uri} is not served: {error or 'not in time'}. {now.model_uri} goes on.")
    write(folder, changed)


def _expected(deployment: Deployment) -> dict[str, str | None]:
    """Return by what a model's URI is recognised in the server's `/version`.

    Raises:
        InputError: There is no such model.
    """
    if not is_model_uri(deployment.model_uri):
        return {"version": None, "sha256": describe_file(Path(deployment.model_uri))[1].sha256}
    from mlflow_yolo.registry.fetching import resolve
    from mlflow_yolo.registry.store import open_registry

    address = parse_model_uri(deployment.model_uri)
    version = resolve(open_registry(with_password(deployment.tracking_uri)), address).version
    return {"name": address.name, "version": str(version)}


def _restart(
    folder: Path, now: Deployment, changed: Deployment, *, wait_s: float, program: Sequence[str]
) -> Deployment:
    """Replace the server's process; where the new settings do not work, the old ones come back."""
    was_running = process_of(now) is not None
    _end(now, grace_s=_GRACE_S)
    try:
        return _start(folder, changed, wait_s=wait_s, program=program)
    except Exception:
        write(folder, now)
        if was_running:
            _start(folder, now, wait_s=wait_s, program=program)
        raise


def _end(deployment: Deployment, *, grace_s: float) -> None:
    """End a deployment's process: asked first, killed after `grace_s` seconds. A foreign process is left alone."""
    process = process_of(deployment)
    if process is None:
        return
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            for one in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait(5.0)


def _absolute(model_uri: str) -> str:
    """Return the URI; a folder as an absolute path, since the server runs elsewhere.

    Raises:
        ArgumentError: It starts with `models:` and names no version.
    """
    if is_model_uri(model_uri):
        return str(parse_model_uri(model_uri))
    return str(Path(model_uri).expanduser().absolute())


def _port(config: Mapping[str, str]) -> int:
    text = str(config.get("port", "0"))
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ArgumentError(f"port={text} is no port. Use 1 to 65535, or leave it out for a free one.")
    return int(text)


def _wait_s(config: Mapping[str, str]) -> float:
    text = str(config.get("wait_s", _WAIT_S))
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise ArgumentError(f"wait_s={text} is no time. Use seconds, above 0.")


def _last_line(log: Path) -> str:
    """Return the last line that says something, the last error if there is one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error:")] or lines
    return said[-1].removeprefix("error:").strip()[:400] if said else ""
