"""The command that searches."""

from pathlib import Path
from typing import Any

import click

from mlflow_yolo.cli.options import (
    FLOAT,
    INT,
    PASS_THROUGH,
    TEXT,
    F,
    add_options,
    common_options,
    option,
    quiet_down,
    tracking_of,
    training_options,
)

SPACE = "freeze=0:backbone,lr0=1e-4:1e-2:log"

_PLACE = ("address", "workers", "threads", "gpus_per_trial")
_EFFORT = ("trials", "hours", "patience", "confirm", "advice", "source", "storage")


def search_options(function: F) -> F:
    """Add what is searched, for what, and how."""
    return add_options(
        function,
        option("space", default=SPACE, help="Dimensions, such as lr0=1e-4:0.1:log or prune=0:0.5; or a YAML file."),
        option(
            "objective", default="auto", help="Metrics to be best in, as size_mb or x:min [final/mAP50-95, or top1]."
        ),
        option("constraints", type=TEXT, default="auto", help="Bounds to keep: latency_p95_ms<=20,size_mb<=6 [none]."),
        option("sampler", default="tpe", help="tpe, gp, nsga2, random or grid."),
        option("pruner", default="auto", help="asha, hyperband, median, wilcoxon, none [median, with one goal]."),
        option("seeds", default="0", help="Seeds; every trial is trained once per seed and has their mean."),
        option("freeze", default="0", help="Frozen blocks where the space does not say."),
        option("strategy", default="single", help="single, two_stage or gradual, where the space does not say."),
        option("lr_decay", type=float, default=1.0, help="Layer-wise decay of lr, where the space does not say."),
    )


def effort_options(function: F) -> F:
    """Add how much is spent, and where."""
    return add_options(
        function,
        option("trials", type=int, default=8, help="Trials in all; more of them continue the same study."),
        option("hours", type=FLOAT, default="auto", help="Begin no trial after so many hours [no limit]."),
        option("patience", type=INT, default="auto", help="Stop after so many trials without a better one [never]."),
        option("confirm", type=int, default=2, help="New seeds on which the best one is set against the default."),
        option("advice", type=bool, default=True, help="Log how deep gradients suggest to freeze."),
        option("source", type=TEXT, default="auto", help="What the model was trained on, for the advice [unknown]."),
        option("executor", default="local", help="local: processes here; ray: the machines of a cluster."),
        option("address", default="auto", help="ray: auto, local, or ray://host:port."),
        option("gpus_per_trial", type=float, default=0.0, help="ray: GPUs of a trial, such as 1 or 0.5."),
        option("workers", type=INT, default="auto", help="Trials at once [one a GPU; without one, up to two]."),
        option("threads", type=INT, default="auto", help="Threads of a trial [an equal share of the cores; ray: 1]."),
        option(
            "storage", type=TEXT, default="auto", help="PostgreSQL URL of the trials [MLFLOW_YOLO_STORAGE, a file]."
        ),
        option("study", type=TEXT, default="auto", help="Name of the study; the same name resumes it."),
        option("output", default="runs", type=click.Path(path_type=Path), help="Folder of all studies."),
    )


@click.command("tune", context_settings=PASS_THROUGH)
@training_options
@search_options
@effort_options
@common_options
@click.pass_context
def tune(context: click.Context, /, **given: Any) -> None:
    """Which freeze depth, learning rate, pruning ratio? Optuna searches; the best one is proved on new seeds."""
    from mlflow_yolo.models.arguments import parse_arguments
    from mlflow_yolo.studies.tuning.question import TuneQuestion
    from mlflow_yolo.studies.tuning.tune import Effort, run_tune
    from mlflow_yolo.studies.tuning.where import where

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    place = where(given.pop("executor"), device=given.pop("device"), **{name: given.pop(name) for name in _PLACE})
    effort = Effort(**{name: given.pop(name) for name in _EFFORT})
    study, output = given.pop("study"), given.pop("output")
    constraints = given.pop("constraints") or ""
    arguments = parse_arguments(context.args)
    question = TuneQuestion(**given, device=place.device, constraints=constraints, arguments=arguments)
    outcome = run_tune(question, effort=effort, where=place, tracking=tracking, study=study, output=output)
    click.echo(outcome.text)
    if outcome.failed:
        context.exit(1)
