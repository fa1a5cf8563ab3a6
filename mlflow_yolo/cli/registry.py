"""Commands of the road to production: register, promote, roll back, and what happened."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_yolo.cli.options import TEXT, common_options, option, quiet_down, tracking_of
from mlflow_yolo.exceptions import ArgumentError, GateError

if TYPE_CHECKING:
    from mlflow_yolo.tracking.stores.target import Target

_NAME = option("name", default="yolo", help="The registered model.")
_TARGET = option("target", default="cpu", help="Where it is to run: the alias is champion-TARGET.")
_flag = partial(option, type=bool, is_flag=False, flag_value="true", default=False)  # --dry-run, or MLproject's true
_REASON = option("reason", type=TEXT, default="auto", help="Why, for the history.")


@click.command("register")
@_NAME
@option(
    "variants",
    default="runs",
    help="Output folder of compress or benchmark, or variants' folders in it; a comma-separated list.",
)
@option(
    "operating_point", type=TEXT, default="auto", help="operating_point.json of thresholds, for the variant it names."
)
@common_options
def register(**given: Any) -> None:
    """Every benchmarked variant becomes a version of a registered model and carries its benchmark as tags."""
    from mlflow_yolo.registry.registration import run_register

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    client = _registry(tracking, creates=True)
    variants = [Path(word).expanduser() for word in given.pop("variants").split(",") if word.strip()]
    point = given.pop("operating_point")
    click.echo(
        run_register(
            client, variants=variants, operating_point=Path(point) if point else None, tracking=tracking, **given
        )
    )


@click.command("promote")
@_NAME
@option("version", default="auto", help="Its version; auto: the newest.")
@_TARGET
@option(
    "gates", type=TEXT, default="auto", help="YAML file with limits, e.g. p95_ms: 20 [defaults of docs/registry.md]."
)
@option("override", type=TEXT, default="auto", help="Gates that may fail, a comma-separated list; needs a reason.")
@_REASON
@_flag("dry_run", help="Judge, and write nothing.")
@_flag("challenger", help="Make it challenger-TARGET, to be tried beside the champion.")
@_flag("rebenchmark", help="Measure it, its parent and the champion on this machine, interleaved.")
@option("data", type=TEXT, default="auto", help="rebenchmark: data.yaml or an embedded dataset.")
@option("split", default="auto", help="rebenchmark: split of the scores; auto: test where there is one.")
@option("runs", type=int, default=100, help="rebenchmark: timed inferences of each.")
@option("rounds", type=int, default=10, help="rebenchmark: turns of each, in interleaved order.")
@option("threads", type=int, default=1, help="rebenchmark: threads of an inference.")
@option("output", default="runs", type=click.Path(path_type=Path), help="rebenchmark: folder below which it is kept.")
@common_options
def promote(**given: Any) -> None:
    """May this version ship? Gates judge it; one that refuses moves nothing (exit 3)."""
    from mlflow_yolo.registry.gates.limits import read_limits
    from mlflow_yolo.registry.promotion import Order
    from mlflow_yolo.registry.promotion import promote as decide

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    limits = read_limits(Path(given["gates"]) if given["gates"] else None)
    order = Order(
        name=given["name"],
        version=given["version"],
        target=given["target"],
        limits=limits,
        overrides=tuple(word.strip() for word in (given["override"] or "").split(",") if word.strip()),
        reason=given["reason"] or "",
        dry_run=given["dry_run"],
        challenger=given["challenger"],
    )
    order.check()
    remeasure = _remeasure(given)
    client = _registry(tracking)
    found = decide(client, order, tracking_uri=tracking.tracking_uri, by=_user(), remeasure=remeasure)
    if found.table:
        click.echo(f"{found.table}\n")
    if found.refused:
        raise GateError(found.outcome)
    click.echo(found.outcome)


@click.command("rollback")
@_NAME
@_TARGET
@_REASON
@common_options
def rollback(**given: Any) -> None:
    """Bring the champion before this one back: two aliases move, nothing is built."""
    from mlflow_yolo.registry.rollback import bring_back

    quiet_down(given.pop("debug"))
    tracking = tracking_of(given)
    bring_back(
        tracking.tracking_uri,
        name=given["name"],
        target=given["target"],
        by=_user(),
        reason=given["reason"] or "",
        open_client=partial(_registry, tracking),
        tell=click.echo,
    )


@click.command("history")
@click.argument("model", default="")
@_NAME
@common_options
def history(model: str, name: str, **given: Any) -> None:
    """Who became champion when, by whom, instead of what, and why: mlflow-yolo history cells."""
    from mlflow_yolo.registry.history import history_text, read_history
    from mlflow_yolo.registry.store import plain_errors

    quiet_down(given.pop("debug"))
    name = model or name
    client = _registry(tracking_of(given))
    with plain_errors(f"read the history of {name}", needs="READ"):
        click.echo(history_text(read_history(client, name)))


def _registry(tracking: "Target", *, creates: bool = False) -> Any:
    """Return the registry's client; where nothing can be there yet, no empty store is left behind."""
    from mlflow_yolo.registry.store import open_registry
    from mlflow_yolo.tracking.stores.addresses import sqlite_path

    store = sqlite_path(tracking.tracking_uri)
    if store is not None and not store.exists() and not creates:
        raise ArgumentError(f"tracking_uri={tracking.tracking_uri} does not exist, so nothing is registered there.")
    return open_registry(tracking.tracking_uri)


def _remeasure(given: dict[str, Any]) -> Any:
    from mlflow_yolo.registry.promotion import Remeasure

    if not given["rebenchmark"]:
        if given["data"]:
            raise ArgumentError(f"data={given['data']} is for --rebenchmark, which was not asked for. Add it.")
        return None
    if not given["data"]:
        raise ArgumentError("rebenchmark needs the data to measure on: --data data.yaml.")
    folder = Path(given["output"]) / f"rebenchmark-{given['name']}-{given['version']}-{given['target']}"
    return Remeasure(given["data"], given["split"], folder, given["runs"], given["rounds"], given["threads"])


def _user() -> str:
    from mlflow_yolo.tracking.stores.context import context_tags

    return context_tags()["mlflow.user"]
