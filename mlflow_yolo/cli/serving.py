"""The command that serves."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlflow_yolo.cli.options import INT, TEXT, F, add_options, option, quiet_down
from mlflow_yolo.exceptions import ArgumentError

TOKEN = "MLFLOW_YOLO_TOKEN"
DEFAULT = "models:/yolo@champion-cpu"
_LIMITS = ("max_body_mb", "max_pixels", "max_batch", "timeout_s")
_CHALLENGER = ("shadow", "canary", "percent", "experiment", "rollback_on", "rollback_after")


def place_options(function: F) -> F:
    """Add where it listens, and what it follows how."""
    return add_options(
        function,
        option("host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 for every one of this machine."),
        option("port", type=int, default=8000, help="Port to listen at; 0 for any that is free."),
        option("poll", type=float, default=5.0, help="Seconds between two looks at the alias."),
        option("tracking_uri", type=TEXT, default="auto", help="MLflow store [MLFLOW_TRACKING_URI, else ./mlflow.db]."),
        option("uri_file", type=click.Path(path_type=Path), hidden=True, help="Follow the URI in this file instead."),
    )


def effort_options(function: F) -> F:
    """Add how it computes, and how much may be asked."""
    return add_options(
        function,
        option("workers", type=INT, default="auto", help="Images computed at once [one a core]."),
        option("threads", type=int, default=1, help="Threads of one inference."),
        option("images_at_once", type=int, default=1, help="Images of one inference; more share one where they wait."),
        option("wait_ms", type=float, default=0.0, help="Milliseconds an image may wait for others to share with."),
        option("max_queue", type=int, default=64, help="Images that may wait; more are refused (429)."),
        option("max_body_mb", type=float, default=16, help="Largest body of a request, 10^6 bytes (413)."),
        option("max_pixels", type=float, default=50e6, help="Largest image, width times height (413)."),
        option("max_batch", type=int, default=32, help="Most images of one request (413)."),
        option("timeout_s", type=float, default=30, help="Seconds to send a body (408), and to be answered (504)."),
    )


def challenger_options(function: F) -> F:
    """Add who else is tried on the same requests."""
    return add_options(
        function,
        option("shadow", type=TEXT, default="auto", help="Alias that computes beside, unseen: challenger-cpu [none]."),
        option("canary", type=TEXT, default="auto", help="Alias that answers some requests instead [none]."),
        option("percent", type=float, default=10, help="Share of the requests that it gets."),
        option("experiment", type=TEXT, default="auto", help="MLflow experiment of its run [MLFLOW_EXPERIMENT_NAME]."),
        option("rollback_on", type=TEXT, default="auto", help="errors=0.02,p95=1.5,agreement=0.9: end it there [off]."),
        option("rollback_after", type=int, default=200, help="Requests before it is judged."),
    )


@click.command("serve")
@click.argument("address", default="")
@option("model", default=DEFAULT, help="The same as the address, for MLproject.")
@place_options
@effort_options
@challenger_options
@option("debug", is_flag=True, help="Show the traceback of an error.")
def serve(address: str, model: str, **given: Any) -> None:
    """Serve ADDRESS over HTTP: models:/cells@champion-cpu, which is followed, models:/cells/7, or a variant's folder.

    With MLFLOW_YOLO_TOKEN set, clients send it as a bearer token. SIGTERM and Ctrl-C answer what is in flight, then
    exit 0.
    """
    # Read when OpenCV is first imported: a client's damaged images are told to the client, not to the log.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    from mlflow_yolo.deployment.http.limits import Limits
    from mlflow_yolo.deployment.http.server import serve as serve_backend

    quiet_down(given.pop("debug"))
    limits = Limits(**{name: given.pop(name) for name in _LIMITS})
    serve_backend(
        lambda: _open(address or model, limits.timeout_s, given),
        host=given.pop("host"),
        port=given.pop("port"),
        limits=limits,
        token=os.environ.get(TOKEN),
        announce=_say,
    )


def _open(model: str, timeout_s: float, given: dict[str, Any]) -> Any:
    from mlflow_yolo.deployment.challenge.challenger import with_challenger
    from mlflow_yolo.deployment.inference.opening import open_backend

    uri, file, tracking_uri = model, given["uri_file"], given["tracking_uri"]
    backend = open_backend(
        uri if file is None else _reader(file, uri),
        tracking_uri=tracking_uri,
        poll_s=given["poll"],
        workers=given["workers"],
        threads=given["threads"],
        max_batch=given["images_at_once"],
        batch_wait_ms=given["wait_ms"],
        max_queue=given["max_queue"],
        timeout_s=timeout_s,
    )
    try:
        chosen = {name: given[name] for name in _CHALLENGER}
        return with_challenger(backend, uri, tracking_uri=tracking_uri, poll_s=given["poll"], **chosen)
    except BaseException:
        backend.close(0)
        raise


def _reader(file: Path, first: str) -> Callable[[], str]:
    """Return a function that reads what to follow; while there is no file, it is what the command line says."""

    def read() -> str:
        try:
            return file.read_text(encoding="utf-8").strip() or first
        except FileNotFoundError:
            return first
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"{file} cannot be read: {error}. It holds one address of a model.") from None

    return read


def _say(line: str) -> None:
    click.echo(line, err=line.startswith("warning:"))
