"""Commands that make variants of a checkpoint and measure them."""

from collections.abc import Callable
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
    locate,
    option,
    quiet_down,
    tracking_of,
)


def subject_options(function: F) -> F:
    """Add what every one of these commands is about."""
    return add_options(
        function,
        option("data", default="digits", help="data.yaml, classification folder, or an embedded dataset."),
        option("model", default="digits", help="Checkpoint .pt, or digits (shipped)."),
        option("split", default="auto", help="Split of the scores; auto: test where there is one."),
        option("imgsz", type=INT, default="auto", help="Input size in pixels [as trained]."),
        option("trust", is_flag=True, help="Load a checkpoint that names foreign classes."),
        option(
            "output", type=TEXT, default="auto", help="Folder of the result; the same command on it goes on [runs/…]."
        ),
    )


def effort_options(function: F) -> F:
    """Add how thoroughly costs are measured."""
    return add_options(
        function,
        option("runs", type=int, default=100, help="Timed inferences of each candidate."),
        option("rounds", type=int, default=10, help="Turns of each candidate, in interleaved order."),
        option("threads", type=int, default=1, help="Threads of an inference, and cores it stays on."),
    )


def tuning_options(epochs: int) -> Callable[[F], F]:
    """Return what adds how a checkpoint is trained on."""

    def add(function: F) -> F:
        return add_options(
            function,
            option("epochs", type=int, default=epochs, help="Epochs of fine-tuning, 0 for none."),
            option("batch", type=int, default=16, help="Images a batch."),
            option("device", default="auto", help="auto, cpu, the number of a GPU, or mps."),
            option("optimizer", default="AdamW", help="AdamW, SGD, …; auto is refused, since it ignores lr0."),
            option("lr0", type=float, default=0.001, help="Initial learning rate."),
            option("seed", type=int, default=0, help="Seed of augmentation, data order and calibration images."),
        )

    return add


def pruning_options(function: F) -> F:
    """Add how much is pruned, and which channels go first."""
    return add_options(
        function,
        option(
            "ratio",
            type=float,
            default=0.3,
            help="Share of the channels of every layer that goes; 0 in compress: none.",
        ),
        option("parts", type=TEXT, default="auto", help="Ratios of parts: backbone=0.4,neck=0.3,head=0.2 [ratio]."),
        option("importance", default="taylor", help="l1, l2, taylor or bn."),
        option("round_to", type=int, default=8, help="Widths become multiples of this."),
        option("steps", type=int, default=1, help="Prune in so many steps."),
        option("teacher", type=TEXT, default="auto", help="Checkpoint to distil from while fine-tuning [none]."),
    )


def int8_options(function: F) -> F:
    """Add how int8 is calibrated and how much it may lose."""
    return add_options(
        function,
        option("method", default="auto", help="minmax, percentile, entropy, mse; auto tries until max_drop holds."),
        option("calibration", type=int, default=200, help="Images of the train split to calibrate on."),
        option("max_drop", type=float, default=0.5, help="Largest loss on val, in points of mAP50-95 or top1."),
    )


@click.command("prune", context_settings=PASS_THROUGH)
@subject_options
@pruning_options
@option("method", default="structured", help="structured; dead: channels that do nothing; unstructured: no speed-up.")
@option("threshold", type=FLOAT, default="auto", help="dead: also channels whose mean |f'| is below it [only dead].")
@option("control", type=bool, default=True, help="Also train the unpruned checkpoint on for as long, to compare with.")
@tuning_options(epochs=10)
@effort_options
@common_options
@click.pass_context
def prune(context: click.Context, /, **given: Any) -> None:
    """Fewer channels: smaller and faster, trained on, compared. The result is OUTPUT/pruned.pt."""
    from mlflow_yolo.variants.prune import run_prune

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    training, effort = _training(given, context.args), _effort(given)
    order = _pruning(given, given.pop("method"), given.pop("threshold"), seed=training.seed)
    click.echo(run_prune(**given, order=order, training=training, effort=effort, tracking=tracking))


@click.command("distill", context_settings=PASS_THROUGH)
@subject_options
@option("teacher", type=TEXT, default="auto", help="Checkpoint of a trained, usually larger model; needed.")
@option(
    "losses", type=TEXT, default="auto", help="Weights: response=1,localisation=0.25,fitnets=…,cwd=…,rkd=… [by task]."
)
@option("temperature", type=TEXT, default="auto", help="A number, or response=2,cwd=4 [as published].")
@option("control", type=bool, default=True, help="Also train the student without the teacher, to compare with.")
@tuning_options(epochs=10)
@effort_options
@common_options
@click.pass_context
def distill(context: click.Context, /, **given: Any) -> None:
    """A student learns from a teacher. The result is OUTPUT/distilled.pt."""
    from mlflow_yolo.variants.distill import run_distill

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    words: dict[str, Any] = {name: given.pop(name) or "" for name in ("teacher", "temperature")}
    training, effort = _training(given, context.args), _effort(given)
    click.echo(run_distill(**given, **words, training=training, effort=effort, tracking=tracking))


@click.command("export")
@subject_options
@option("format", default="fp32-onnx", help="fp32-onnx, fp16-onnx, fp32-openvino, bf16-openvino; a list.")
@option("opset", type=INT, default="auto", help="ONNX operator set [the newest every runtime takes].")
@option("dynamic", type=bool, default=False, help="Leave height and width of the input free.")
@option("simplify", type=bool, default=True, help="Fold constants of the graph.")
@common_options
def export(**given: Any) -> None:
    """Float files of a checkpoint, checked against it. Each is a folder in OUTPUT, named after its kind."""
    from mlflow_yolo.variants.convert import run_export
    from mlflow_yolo.variants.making import FLOAT_KINDS, parse_kinds

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    kinds = parse_kinds(given.pop("format"), FLOAT_KINDS)
    options = {name: given.pop(name) for name in ("opset", "dynamic", "simplify")}
    click.echo(run_export(**given, kinds=kinds, options=options, tracking=tracking))


@click.command("quantize")
@subject_options
@option("format", default="int8-onnx", help="int8-onnx, dynamic-int8-onnx, int8-openvino; a list.")
@int8_options
@option("symmetric", type=bool, default=False, help="Zero of activations in the middle of their range.")
@option("seed", type=int, default=0, help="Seed of the choice of calibration images.")
@common_options
def quantize(**given: Any) -> None:
    """Int8 files of a checkpoint and what they lose. Each is a folder in OUTPUT, named after its kind."""
    from mlflow_yolo.variants.convert import run_quantize
    from mlflow_yolo.variants.making import INT8_KINDS, parse_kinds

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    kinds = parse_kinds(given.pop("format"), INT8_KINDS)
    click.echo(run_quantize(**given, kinds=kinds, tracking=tracking))


@click.command("benchmark")
@subject_options
@option("variants", type=TEXT, default="auto", help="Folders of variants, comma-separated [the model alone].")
@effort_options
@common_options
def benchmark(**given: Any) -> None:
    """What does each file cost and score on this machine? The model is always the first row.

    Model and variants may also be versions of a registered model: models:/NAME@ALIAS, or models:/NAME/VERSION.
    """
    from mlflow_yolo.variants.benchmark import run_benchmark_command

    quiet_down(given.pop("debug"))
    tracking, effort = tracking_of(given), _effort(given)
    given["model"] = locate(given["model"], tracking)
    words = filter(None, (word.strip() for word in (given.pop("variants") or "").split(",")))
    variants = [locate(word, tracking) for word in words]
    click.echo(run_benchmark_command(**given, variants=variants, effort=effort, tracking=tracking))


@click.command("compress", context_settings=PASS_THROUGH)
@subject_options
@option("kinds", type=TEXT, default="auto", help="Kinds of variants, comma-separated [all that can be made here].")
@pruning_options
@option("control", type=bool, default=False, help="Also train the unpruned checkpoint on for as long, to compare with.")
@option("sizes", type=TEXT, default="auto", help="Smaller input sizes that join the table, comma-separated [none].")
@option("also", type=TEXT, default="auto", help="Other checkpoints that join the table, comma-separated [none].")
@int8_options
@tuning_options(epochs=10)
@effort_options
@common_options
@click.pass_context
def compress(context: click.Context, /, **given: Any) -> None:
    """The whole chain on one checkpoint: prune, fine-tune, export, quantize, benchmark; one table at the end."""
    from mlflow_yolo.variants.compress import Chain, read_kinds, read_sizes, run_compress

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    training, effort = _training(given, context.args), _effort(given)
    wanted = given["ratio"] or given["parts"]
    order = _pruning(given, "structured", seed=training.seed) if wanted else None
    for name in () if wanted else ("ratio", "parts", "importance", "round_to", "steps"):
        given.pop(name)
    chain = Chain(
        kinds=read_kinds(given.pop("kinds")),
        pruning=order,
        training=training,
        sizes=read_sizes(given.pop("sizes")),
        also=tuple(filter(None, (given.pop("also") or "").split(","))),
        **{name: given.pop(name) for name in ("control", "teacher", "method", "calibration", "max_drop")},
    )
    click.echo(run_compress(**given, chain=chain, effort=effort, tracking=tracking).text)


def _training(given: dict[str, Any], words: list[str]) -> Any:
    """Take out of `given` how a checkpoint is trained on."""
    from mlflow_yolo.models.arguments import parse_arguments
    from mlflow_yolo.variants.fine_tuning import FineTuning

    names = ("epochs", "batch", "device", "optimizer", "lr0", "seed")
    return FineTuning(**{name: given.pop(name) for name in names}, arguments=parse_arguments(words))


def _effort(given: dict[str, Any]) -> Any:
    """Take out of `given` how thoroughly costs are measured."""
    from mlflow_yolo.variants.comparison import Effort

    return Effort(**{name: given.pop(name) for name in ("runs", "rounds", "threads")})


def _pruning(given: dict[str, Any], method: str, threshold: float | None = None, *, seed: int) -> Any:
    """Take out of `given` what is removed."""
    from mlflow_yolo.variants.pruning_order import order_pruning

    values = {name: given.pop(name) for name in ("ratio", "importance", "round_to", "steps")}
    return order_pruning(method, **values, parts=given.pop("parts") or "", seed=seed, threshold=threshold)
