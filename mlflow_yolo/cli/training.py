"""Commands that train."""

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


def strategy_options(function: F) -> F:
    """Add the options that say how frozen blocks come to train, and how fast each block does."""
    return add_options(
        function,
        option(
            "strategy",
            default="single",
            help="single; two_stage: frozen first, then all blocks train; gradual: group by group, the deepest first.",
        ),
        option("epochs1", type=INT, default="auto", help="two_stage: epochs of stage 1 [a third of epochs]."),
        option("epochs2", type=INT, default="auto", help="two_stage: epochs of stage 2 [the rest]."),
        option("lr02", type=FLOAT, default="auto", help="two_stage: initial learning rate of stage 2 [lr0 / 10]."),
        option("warmup_epochs2", type=float, default=0.0, help="two_stage: warm-up of stage 2 in epochs."),
        option(
            "unfreeze_every", type=INT, default="auto", help="gradual: epochs between two groups [a quarter of epochs]."
        ),
        option(
            "lr_decay",
            type=float,
            default=1.0,
            help="Learning rate of each block, from the head to the first, as a part of the next one's.",
        ),
    )


@click.command("freeze-ablation", context_settings=PASS_THROUGH)
@training_options
@option("freeze", default="0,3,6,10", help="Depths and words: N, backbone, neck, head, N- (block N and later).")
@option("seeds", default="0,1", help="Seeds; each configuration is trained once per seed.")
@strategy_options
@option("advice", type=bool, default=True, help="Ask the freeze advisor before the trainings.")
@option("source", type=TEXT, default="auto", help="Data the model was trained on: makes the advice better [none].")
@option("workers", type=int, default=1, help="Trainings at once, each in a process of its own.")
@option("study", type=TEXT, default="auto", help="Name of the study; the same name resumes it [from the question].")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder of all studies.")
@common_options
@click.pass_context
def freeze_ablation(context: click.Context, /, **given: Any) -> None:
    """How deep to freeze? Trains every configuration with every seed and compares them on the test split."""
    from mlflow_yolo.models.arguments import check_positive, parse_arguments
    from mlflow_yolo.studies.freeze.ablation import run_freeze_ablation
    from mlflow_yolo.studies.freeze.question import FreezeQuestion

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    check_positive(workers=given["workers"])
    workers, study, output = given.pop("workers"), given.pop("study"), given.pop("output")
    advice, source = given.pop("advice"), given.pop("source")
    question = FreezeQuestion(**given, arguments=parse_arguments(context.args))
    outcome = run_freeze_ablation(
        question, tracking=tracking, workers=workers, study=study, output=output, advice=advice, source=source
    )
    click.echo(outcome.text)
    if outcome.n_failed:
        context.exit(1)


@click.command("train", context_settings=PASS_THROUGH)
@training_options
@option("freeze", default="0", help="One depth or word: N, backbone, neck, head, N-.")
@option("seed", type=int, default=0, help="Seed of weights, augmentation and data order.")
@strategy_options
@option("resume", type=TEXT, default="auto", help="Directory or last.pt of an interrupted training [none].")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder below which the training writes.")
@common_options
@click.pass_context
def train(context: click.Context, /, **given: Any) -> None:
    """One tracked training."""
    from mlflow_yolo.models.arguments import parse_arguments
    from mlflow_yolo.training.single import run_training

    quiet_down(given.pop("debug"))
    tracking, output = tracking_of(given), given.pop("output")
    click.echo(run_training(**given, arguments=parse_arguments(context.args), tracking=tracking, output=output))
