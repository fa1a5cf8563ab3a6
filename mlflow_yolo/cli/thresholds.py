"""The command that chooses confidence and IoU."""

from pathlib import Path
from typing import Any

import click

from mlflow_yolo.cli.options import INT, common_options, locate, option, quiet_down, tracking_of

_ASKED = ("conf", "iou", "objective", "beta", "c_fp", "c_fn", "max_det", "match_iou", "judge", "per_class")


@click.command("thresholds")
@option("model", default="digits", help="Checkpoint .pt, digits (shipped), a variant's folder, or models:/NAME@ALIAS.")
@option("data", default="digits", help="data.yaml or an embedded dataset.")
@option("split", default="auto", help="val (cross-fitted) or test, to report on; auto: test where there is one.")
@option("objective", default="f1", help="f1, fbeta, cost, recall@0.9 (at precision 0.9 or more), precision@0.9.")
@option("conf", default="0.05:0.95:0.05", help="Confidences shown, low:high:step or a list; the choice is exact.")
@option("iou", default="0.3:0.8:0.05", help="IoU of suppression, low:high:step or a list.")
@option("beta", type=float, default=2.0, help="F-beta: recall counts beta times as much as precision.")
@option("c_fp", type=float, default=1.0, help="Cost of a false detection.")
@option("c_fn", type=float, default=1.0, help="Cost of a missed object.")
@option("max_det", type=int, default=300, help="Detections an image; 300 rises to the fullest image's objects.")
@option("match_iou", type=float, default=0.5, help="Overlap with an object that makes a detection right.")
@option("judge", default="auto", help="boxes or masks [masks where the model makes them].")
@option("per_class", default="auto", help="true, false; auto: a threshold for each class where shown to be better.")
@option("write", type=bool, default=False, help="Put the point into the variant's variant.json.")
@option("imgsz", type=INT, default="auto", help="Input size in pixels [as trained].")
@option("batch", type=int, default=16, help="Images a batch.")
@option("device", default="auto", help="auto, cpu, the number of a GPU, or mps.")
@option("trust", is_flag=True, help="Load a checkpoint that names foreign classes.")
@option("output", default="runs", type=click.Path(path_type=Path), help="Folder below which files are written.")
@common_options
def thresholds(**given: Any) -> None:
    """Which conf and IoU do I ship? Chosen on val from one forward pass, reported on images not chosen on."""
    from mlflow_yolo.studies.thresholds.workflow import read_question, run_thresholds

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    question = read_question(**{name: given.pop(name) for name in _ASKED})
    given["model"] = locate(given["model"], tracking)
    click.echo(run_thresholds(**given, question=question, tracking=tracking))
