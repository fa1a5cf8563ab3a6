"""Options that commands share, and what every command does before its work."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlflow_yolo.exceptions import ArgumentError

if TYPE_CHECKING:
    from mlflow_yolo.registry.fetching import Fetched

F = TypeVar("F", bound=Callable[..., Any])

PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Settings of a command that takes Ultralytics' arguments as well."""


class _AutoType(click.ParamType[Any]):
    """A number, or the word `auto` for None."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.name = "integer|auto" if kind is int else "float|auto"
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or str(value).lower() in ("auto", ""):
            return None
        try:
            return self._kind(value)
        except ValueError:
            kind = "a whole number" if self._kind is int else "a number"
            name = param.name if param else "value"
            raise ArgumentError(f"{name}={value} is not {kind} (or auto).") from None


INT = _AutoType(int)
FLOAT = _AutoType(float)


class _OptionalText(click.ParamType[Any]):
    """A text, or the word `auto` for None."""

    name = "text|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        return None if value is None or str(value).lower() in ("auto", "") else str(value)


TEXT = _OptionalText()


def option(name: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option that may be written with `-` or `_`: `mlflow run` writes parameters with `_`."""
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    settings.setdefault("show_default", True)
    return click.option(*spellings, name, **settings)


def add_options(function: F, *options: Callable[[F], F]) -> F:
    """Return a command with options added so that its help lists them in this order."""
    for add in reversed(options):
        function = add(function)
    return function


def common_options(function: F) -> F:
    """Add the options that every command takes."""
    for add in (
        option("debug", is_flag=True, help="Show the traceback of an error."),
        option("run_name", type=TEXT, default="auto", help="Name of the run."),
        option("tracking_uri", type=TEXT, default="auto", help="MLflow store [MLFLOW_TRACKING_URI, else ./mlflow.db]."),
        option(
            "experiment", type=TEXT, default="auto", help="MLflow experiment [MLFLOW_EXPERIMENT_NAME, else Default]."
        ),
    ):
        function = add(function)
    return function


def training_options(function: F) -> F:
    """Add the options of one training."""
    for add in (
        option("trust", is_flag=True, help="Load a checkpoint that names foreign classes."),
        option(
            "maps",
            type=TEXT,
            default="auto",
            help="Maps of where the model looks: off, or every N epochs [3 % of time].",
        ),
        option("every_n_steps", type=INT, default="auto", help="Block statistics at every n-th step [1 % of time]."),
        option(
            "statistics",
            type=click.Choice(["off", "default", "all"]),
            default="default",
            help="Block statistics; all: every statistic at every step.",
        ),
        option("device", default="auto", help="auto, cpu, the number of a GPU, or mps."),
        option("warmup_epochs", type=float, default=0.5, help="Epochs until the learning rate reaches lr0."),
        option("lr0", type=float, default=0.002, help="Initial learning rate."),
        option("optimizer", default="AdamW", help="AdamW, SGD, …; auto is refused, since it ignores lr0."),
        option("batch", type=int, default=16, help="Images a batch."),
        option("imgsz", type=INT, default="auto", help="Input size in pixels [128 for digits*, else 640]."),
        option("epochs", type=int, default=5, help="Epochs."),
        option("model", default="digits", help="Checkpoint .pt, model .yaml, a name, or digits (shipped)."),
        option("data", default="digits-logchroma", help="data.yaml, classification folder, or an embedded dataset."),
    ):
        function = add(function)
    return function


def tracking_of(given: dict[str, Any]) -> Any:
    """Take the tracking options out of `given` and return where the run goes."""
    from mlflow_yolo.tracking.stores.target import resolve_target

    target = resolve_target(
        tracking_uri=given.pop("tracking_uri"), experiment=given.pop("experiment"), run_name=given.pop("run_name")
    )
    # A password is written nowhere: workers and replay find it here.
    os.environ["MLFLOW_TRACKING_URI"] = target.tracking_uri
    return target


def locate(model: str, tracking: Any) -> "str | Fetched":
    """Return a model as it was written, or the registered version that `models:/…` names, as files on this machine.

    Args:
        model: What the user wrote.
        tracking: What `tracking_of` returned; its store is the registry's.

    Raises:
        InputError: There is no such version, its bytes have changed, or the registry does not let this user read.
    """
    from mlflow_yolo.registry.address import is_model_uri

    if not is_model_uri(model):
        return model
    from mlflow_yolo.registry.fetching import fetch

    return fetch(model, tracking_uri=tracking.tracking_uri)


def quiet_down(debug: bool) -> None:
    """Keep the libraries' own messages out of the result, and their retries short: the journal retries for us."""
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(message)s")
    for name in ("alembic", "mlflow", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
