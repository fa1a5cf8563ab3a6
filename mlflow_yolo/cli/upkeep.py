"""Commands that look after what is there."""

from pathlib import Path
from typing import Any

import click

from mlflow_yolo.cli.options import common_options, option, quiet_down
from mlflow_yolo.exceptions import ArgumentError


@click.command("replay")
@click.argument("directory", default="runs", type=click.Path(path_type=Path))
@common_options
def replay(directory: Path, **given: Any) -> None:
    """Send what a dead tracking server missed: every journal below DIRECTORY."""
    from mlflow_yolo.tracking.delivery.replay import replay as send

    quiet_down(given["debug"])
    if not directory.is_dir():
        raise ArgumentError(f"{directory} is not a directory. Name the folder a study or training wrote to.")
    report = send(directory, tracking_uri=given["tracking_uri"])
    click.echo(str(report))
    if report.n_pending:
        raise SystemExit(1)


@click.command("doctor")
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

    quiet_down(given["debug"])
    findings = checks.doctor(directory, tracking_uri=resolve_uri(given["tracking_uri"]), fix=fix, init=init)
    for finding in findings:
        if not quiet or finding.status != "ok":
            click.echo(str(finding))
    if any(finding.status == "fail" for finding in findings):
        context.exit(1)
