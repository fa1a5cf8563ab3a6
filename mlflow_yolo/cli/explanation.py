"""The command that explains."""

from pathlib import Path
from typing import Any

import click

from mlflow_yolo.cli.options import FLOAT, INT, TEXT, common_options, option, quiet_down, tracking_of


@click.command("explain")
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

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    names = ("method", "block", "conf", "per_class", "instances", "perturbed")
    settings = Settings(**{name: given.pop(name) for name in names})
    click.echo(run_explain(**given, settings=settings, tracking=tracking))
