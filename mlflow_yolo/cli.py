"""The command line: one command per entry point of the MLproject. It parses, calls and prints; nothing else."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from mlflow_yolo import __version__
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError

F = TypeVar("F", bound=Callable[..., Any])

_PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 a failure while working, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(args=words, prog_name="mlflow-yolo", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        resumes = words[:1] != ["explain"]
        code = _say("interrupted." + (" Start the same command again to resume." if resumes else ""), 130)
    except click.ClickException as error:
        code = _say(f"error: {error.format_message()}", 2)
    except MlflowYoloError as error:
        if "--debug" in words:
            traceback.print_exc()
        code = _say(f"error: {error}", error.exit_code)
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        message = " ".join(str(error).split())[:400]
        code = _say(f"error: {type(error).__name__}: {message} (add --debug for the traceback)", 1)
    sys.exit(code or 0)


def _say(line: str, code: int) -> int:
    click.echo(line, err=True)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlflow-yolo")
def cli() -> None:
    """MLflow as the laboratory notebook of Ultralytics YOLO.

    Every Ultralytics training argument is accepted under its own name, for example --hsv_h 0 --cos_lr true.
    """


@cli.command("freeze-ablation", context_settings=_PASS_THROUGH)
@training_options
@option("freeze", default="0,3,6,10", help="Depths and words: N, backbone, neck, head, N- (block N and later).")
@option("seeds", default="0,1", help="Seeds; each configuration is trained once per seed.")
@option("strategy", default="single", help="single, or two_stage: frozen first, then all blocks train.")
@option("epochs1", type=INT, default="auto", help="two_stage: epochs of stage 1 [a third of epochs].")
@option("epochs2", type=INT, default="auto", help="two_stage: epochs of stage 2 [the rest].")
@option("lr02", type=FLOAT, default="auto", help="two_stage: initial learning rate of stage 2 [lr0 / 10].")
@option("warmup_epochs2", type=float, default=0.0, help="two_stage: warm-up of stage 2 in epochs.")
@option("workers", type=int, default=1, help="Trainings at once, each in a process of its own.")
@option("study", type=TEXT, default="auto", help="Name of the study; the same name resumes it [from the question].")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder of all studies.")
@common_options
@click.pass_context
def freeze_ablation(context: click.Context, /, **given: Any) -> None:
    """How deep to freeze? Trains every configuration with every seed and compares them on the test split."""
    from mlflow_yolo.models.arguments import check_positive, parse_arguments
    from mlflow_yolo.studies.freeze_ablation import run_freeze_ablation
    from mlflow_yolo.studies.question import FreezeQuestion

    _quiet(given.pop("debug"))
    tracking = _tracking(given)
    check_positive(workers=given["workers"])
    workers, study, output = given.pop("workers"), given.pop("study"), given.pop("output")
    question = FreezeQuestion(**given, arguments=parse_arguments(context.args))
    outcome = run_freeze_ablation(question, tracking=tracking, workers=workers, study=study, output=output)
    click.echo(outcome.text)
    if outcome.n_failed:
        context.exit(1)


@cli.command("train", context_settings=_PASS_THROUGH)
@training_options
@option("freeze", default="0", help="One depth or word: N, backbone, neck, head, N-.")
@option("seed", type=int, default=0, help="Seed of weights, augmentation and data order.")
@option("resume", type=TEXT, default="auto", help="Directory or last.pt of an interrupted training [none].")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder below which the training writes.")
@common_options
@click.pass_context
def train(context: click.Context, /, **given: Any) -> None:
    """One tracked training."""
    from mlflow_yolo.models.arguments import parse_arguments
    from mlflow_yolo.training.single import run_training

    _quiet(given.pop("debug"))
    tracking, output = _tracking(given), given.pop("output")
    click.echo(run_training(**given, arguments=parse_arguments(context.args), tracking=tracking, output=output))


@cli.command("explain")
@option("data", default="digits", help="data.yaml, classification folder, or an embedded dataset.")
@option("model", default="digits", help="Checkpoint .pt, or digits (shipped).")
@option("split", default="auto", help="train, val, test; auto: test where there is one.")
@option("method", type=TEXT, default="auto", help="layercam, hirescam, gradcam, … [detection layercam, classes exact].")
@option("block", type=INT, default="auto", help="Block to look at [of each detection level].")
@option("conf", type=FLOAT, default="auto", help="Operating point [the confidence with the best mean F1].")
@option("per_class", type=int, default=3, help="Worst and best examples of a class.")
@option("instances", type=int, default=30, help="Objects of a class and outcome whose maps are measured.")
@option("perturbed", type=int, default=32, help="Detections for deletion and insertion, some 80 passes each.")
@option("categories", type=TEXT, default="auto", help="YAML or JSON with the categories of the classes [none].")
@option("imgsz", type=INT, default="auto", help="Input size in pixels [as trained].")
@option("batch", type=int, default=16, help="Images a batch.")
@option("device", default="auto", help="auto, cpu, the number of a GPU, or mps.")
@option("trust", is_flag=True, help="Load a checkpoint that names foreign classes.")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder below which files are written.")
@common_options
def explain(**given: Any) -> None:
    """Where does the model look, and what does it get wrong? One report on a split."""
    from mlflow_yolo.explanation.findings import Settings
    from mlflow_yolo.explanation.workflow import run_explain

    _quiet(given.pop("debug"))
    tracking = _tracking(given)
    names = ("method", "block", "conf", "per_class", "instances", "perturbed")
    settings = Settings(**{name: given.pop(name) for name in names})
    click.echo(run_explain(**given, settings=settings, tracking=tracking))


@cli.command("replay")
@click.argument("directory", default="runs", type=click.Path(path_type=Path))
@common_options
def replay(directory: Path, **given: Any) -> None:
    """Send what a dead tracking server missed: every journal below DIRECTORY."""
    from mlflow_yolo.tracking.delivery.replay import replay as send

    _quiet(given["debug"])
    if not directory.is_dir():
        raise ArgumentError(f"{directory} is not a directory. Name the folder a study or training wrote to.")
    report = send(directory, tracking_uri=given["tracking_uri"])
    click.echo(str(report))
    if report.n_pending:
        raise SystemExit(1)


@cli.command("doctor")
@click.argument("directory", default="runs", type=click.Path(path_type=Path))
@option("fix", is_flag=True, help="Repair what can be repaired without losing anything.")
@option("init", is_flag=True, help="Create the tracking store if it does not exist.")
@option("quiet", is_flag=True, help="Print only what needs attention.")
@common_options
@click.pass_context
def doctor(context: click.Context, /, directory: Path, fix: bool, init: bool, quiet: bool, **given: Any) -> None:
    """Is my set-up right? Packages, GPU, tracking store, pending journals below DIRECTORY, stale runs."""
    from mlflow_yolo import doctor as checks
    from mlflow_yolo.tracking.stores.target import resolve_uri

    _quiet(given["debug"])
    findings = checks.doctor(directory, tracking_uri=resolve_uri(given["tracking_uri"]), fix=fix, init=init)
    for finding in findings:
        if not quiet or finding.status != "ok":
            click.echo(str(finding))
    if any(finding.status == "fail" for finding in findings):
        context.exit(1)


def _tracking(given: dict[str, Any]) -> Any:
    """Take the tracking options out of `given` and return where the run goes."""
    from mlflow_yolo.tracking.stores.target import resolve_target

    target = resolve_target(
        tracking_uri=given.pop("tracking_uri"), experiment=given.pop("experiment"), run_name=given.pop("run_name")
    )
    # A password is written nowhere: workers and replay find it here.
    os.environ["MLFLOW_TRACKING_URI"] = target.tracking_uri
    return target


def _quiet(debug: bool) -> None:
    """Keep the libraries' own messages out of the result, and their retries short: the journal retries for us."""
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(message)s")
    for name in ("alembic", "mlflow", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


if __name__ == "__main__":
    main()
