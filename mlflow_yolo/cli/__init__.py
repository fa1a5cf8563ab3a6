"""The command line: one command per entry point of the MLproject. It parses, calls and prints; nothing else."""

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from mlflow_yolo import __version__
from mlflow_yolo.cli.explanation import explain
from mlflow_yolo.cli.registry import history, promote, register, rollback
from mlflow_yolo.cli.serving import serve
from mlflow_yolo.cli.thresholds import thresholds
from mlflow_yolo.cli.training import freeze_ablation, train
from mlflow_yolo.cli.tuning import tune
from mlflow_yolo.cli.upkeep import doctor, replay
from mlflow_yolo.cli.variants import benchmark, compress, distill, export, prune, quantize
from mlflow_yolo.exceptions import MlflowYoloError

_WHOLE = ("explain", "thresholds", "register", "promote", "rollback", "history", "serve", "doctor")
"""Commands that begin anew when they are started again."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    0: done; 1: a failure while working; 2: bad input; 3: a gate refused; 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(args=words, prog_name="mlflow-yolo", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        resumes = words[:1] not in [[name] for name in _WHOLE]
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlflow-yolo")
def cli() -> None:
    """MLflow as the laboratory notebook of Ultralytics YOLO.

    Every Ultralytics training argument is accepted under its own name, for example --hsv_h 0 --cos_lr true.
    """


for command in (
    train,
    freeze_ablation,
    tune,
    explain,
    thresholds,
    prune,
    distill,
    quantize,
    export,
    benchmark,
    compress,
    register,
    promote,
    rollback,
    history,
    serve,
    replay,
    doctor,
):
    cli.add_command(command)
