"""May this version ship? Judged by gates, then moved, with everything that was found kept at the version."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.registry.champions import CHAMPION, alias_of, challenge, champion, crown, settled
from mlflow_yolo.registry.description import model_text
from mlflow_yolo.registry.fetching import Fetched, fetch
from mlflow_yolo.registry.gates.evidence import Evidence, read_evidence
from mlflow_yolo.registry.gates.gate import OFF, Verdict
from mlflow_yolo.registry.gates.judging import GATES, judge, report, tags
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.gates.rebenchmark import rebenchmark
from mlflow_yolo.registry.history import Entry, read_history
from mlflow_yolo.registry.rollback import moved_text
from mlflow_yolo.registry.store import plain_errors
from mlflow_yolo.registry.versions import list_versions

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SERVABLE = ("integrity", "metadata", "smoke")
"""Gates of a challenger: it is only tried beside the champion, so it has to run, not to be better."""

NEWEST = "auto"


@dataclass(frozen=True)
class Order:
    """What is to be promoted.

    Attributes:
        name: The registered model.
        version: Its version, or `auto` for the newest.
        target: Where it is to run, as in `champion-<target>`.
        limits: What the gates ask for.
        overrides: Gates that may fail.
        reason: Why; needed with `overrides`.
        dry_run: Judge and write nothing.
        challenger: Make it the challenger instead, for which only `SERVABLE` have to pass.
    """

    name: str
    version: str
    target: str
    limits: Limits
    overrides: tuple[str, ...] = ()
    reason: str = ""
    dry_run: bool = False
    challenger: bool = False

    def check(self) -> None:
        """Raise ArgumentError for the first thing that cannot work."""
        alias_of(CHAMPION, self.target)
        if not self.version.isdigit() and self.version != NEWEST:
            raise ArgumentError(f"version={self.version} is not a version's number. Use for example --version 7.")
        unknown = next((gate for gate in self.overrides if gate not in GATES), None)
        if unknown is not None:
            raise ArgumentError(f"override={unknown} is no gate. Use some of {', '.join(GATES)}.")
        if self.overrides and not self.reason.strip():
            raise ArgumentError(f"override={','.join(self.overrides)} needs a reason: --reason 'why it may ship'.")


@dataclass(frozen=True)
class Remeasure:
    """How candidate, parent and champion are measured anew on this machine.

    Attributes:
        data: data.yaml or an embedded dataset.
        split: Of the scores.
        directory: Where timings and predictions are kept.
        runs: Timed inferences of each.
        rounds: Turns in which they are made, all of them in each.
        threads: Threads of one inference.
    """

    data: str
    split: str
    directory: Path
    runs: int = 100
    rounds: int = 10
    threads: int = 1


@dataclass(frozen=True)
class Promotion:
    """What came of it.

    Attributes:
        verdicts: Of every gate.
        entry: What was written into the history; None where nothing was.
        table: Every gate with value, limit and verdict, as text.
        outcome: What follows from it, one line.
        refused: Whether a gate refused.
    """

    verdicts: tuple[Verdict, ...]
    entry: Entry | None
    table: str
    outcome: str
    refused: bool = False


def promote(
    client: "MlflowClient", order: Order, *, tracking_uri: str, by: str, remeasure: Remeasure | None = None
) -> Promotion:
    """Judge a version and, where every gate passes or is overridden, make it the champion.

    What the gates found is kept in the version's tags, unless it is a dry run. Where one refuses, nothing is moved.

    Args:
        client: Of the registry.
        order: What is to be promoted.
        tracking_uri: The registry, for the workers that download from it.
        by: Who does it.
        remeasure: Measure on this machine instead of believing the stored benchmark.

    Raises:
        InputError: The version does not exist, its bytes are others than were registered, or the order cannot work.
        WorkError: Another version has become champion meanwhile; nothing was moved.
    """
    order.check()
    with plain_errors(f"promote {order.name} version {order.version}"):
        # A dry run does not even finish what a killed promoter left.
        history = (
            read_history(client, order.name) if order.dry_run else settled(client, order.name, order.target, by=by)
        )
        order = replace(order, version=_newest(client, order.name)) if order.version == NEWEST else order
        expected = champion(history, order.target)
        if expected == order.version and not order.challenger:
            alias = alias_of(CHAMPION, order.target)
            return Promotion((), None, "", f"{order.name} version {expected} is {alias} already.")
        candidate = _fetched(client, order.name, order.version, tracking_uri)
        reigning, broken = _reigning(client, order.name, expected, tracking_uri)
        evidence = _evidence(client, order.name, candidate, reigning, tracking_uri, remeasure)
        limits = order.limits.only(SERVABLE) if order.challenger else order.limits
        verdicts = tuple(_spoiled(one, broken) for one in judge(evidence, limits))
        refused = bool(_refusing(verdicts, order))
        if not order.dry_run:
            # Of a challenger most gates are not asked: what they found earlier stays.
            measured = _keep_measurement(client, order, history.run_id, evidence) if remeasure else {}
            asked = [one for one in verdicts if not order.challenger or one.gate in SERVABLE]
            _keep(client, order, {**tags(asked), **measured})
        if refused or order.dry_run:
            nothing = "Dry run: nothing was written." if order.dry_run else "Nothing was moved."
            return Promotion(verdicts, None, report(verdicts), f"{_outcome(order, verdicts)} {nothing}", refused)
        entry = _move(client, order, verdicts, expected=expected, by=by)
        _keep(client, order, _promotion_tags(entry))
        client.update_registered_model(order.name, model_text(client, order.name))
    return Promotion(verdicts, entry, report(verdicts), f"{_outcome(order, verdicts)} {moved_text(order.name, entry)}")


def _newest(client: "MlflowClient", name: str) -> str:
    found = list_versions(client, name)
    if not found:
        raise ArgumentError(f"{name} has no version. Register one first: mlflow-yolo register.")
    return str(found[0].version)


def _reigning(client: "MlflowClient", name: str, version: str, tracking_uri: str) -> tuple[Fetched | None, str]:
    """Return the champion, and why it cannot be read: then it has to be replaceable all the same."""
    try:
        return (_fetched(client, name, version, tracking_uri) if version else None), ""
    except CheckpointError as error:
        return None, str(error)


def _spoiled(verdict: Verdict, broken: str) -> Verdict:
    """Return a verdict; the one on a champion that cannot be read is that nothing is known."""
    if not broken or verdict.gate != "champion_drop" or verdict.word == OFF:
        return verdict
    return Verdict(verdict.gate, "", "evidence", False, broken)


def _fetched(client: "MlflowClient", name: str, version: str, tracking_uri: str) -> Fetched:
    return fetch(f"models:/{name}/{version}", tracking_uri=tracking_uri, client=client)


def _evidence(
    client: "MlflowClient",
    name: str,
    candidate: Fetched,
    reigning: Fetched | None,
    tracking_uri: str,
    remeasure: Remeasure | None,
) -> Evidence:
    if remeasure is None:
        return read_evidence(client, candidate, reigning)
    parent = candidate.tags.get("parent_version")
    return rebenchmark(
        candidate,
        _fetched(client, name, parent, tracking_uri) if parent else None,
        reigning,
        data=remeasure.data,
        split=remeasure.split,
        directory=remeasure.directory,
        runs=remeasure.runs,
        rounds=remeasure.rounds,
        threads=remeasure.threads,
    )


def _refusing(verdicts: Sequence[Verdict], order: Order) -> list[str]:
    return [one.gate for one in verdicts if not one.passed and one.gate not in order.overrides]


def _overridden(verdicts: Sequence[Verdict], order: Order) -> tuple[str, ...]:
    return tuple(one.gate for one in verdicts if not one.passed and one.gate in order.overrides)


def _move(client: "MlflowClient", order: Order, verdicts: Sequence[Verdict], *, expected: str, by: str) -> Entry:
    if order.challenger:
        return challenge(client, order.name, version=order.version, target=order.target, by=by, reason=order.reason)
    return crown(
        client,
        order.name,
        version=order.version,
        target=order.target,
        expected=expected,
        by=by,
        reason=order.reason,
        overrides=_overridden(verdicts, order),
    )


def _keep(client: "MlflowClient", order: Order, found: dict[str, str]) -> None:
    for key, value in found.items():
        client.set_model_version_tag(order.name, order.version, key, value)


def _keep_measurement(client: "MlflowClient", order: Order, run_id: str, evidence: Evidence) -> dict[str, str]:
    """Put what was measured anew into the history run, and return the tag that says where."""
    place = f"rebenchmark/version-{order.version}/{datetime.now(UTC):%Y%m%dT%H%M%S}"
    client.log_artifacts(run_id, str(evidence.candidate.benchmark), place)
    return {f"promotion.{order.target}.rebenchmark": f"runs:/{run_id}/{place}"}


def _promotion_tags(entry: Entry) -> dict[str, str]:
    what = f"promotion.{entry.target}"
    return {
        f"{what}.action": entry.action,
        f"{what}.at": entry.at,
        f"{what}.by": entry.by,
        f"{what}.instead_of": entry.replaced or "none",
        **({f"{what}.reason": entry.reason} if entry.reason else {}),
        **({f"{what}.overrides": ",".join(entry.overrides)} if entry.overrides else {}),
    }


def _outcome(order: Order, verdicts: Sequence[Verdict]) -> str:
    refusing, overridden = _refusing(verdicts, order), _overridden(verdicts, order)
    role = "challenger" if order.challenger else "champion"
    what = f"{order.name} version {order.version} as {role} for {order.target}"
    beside = f" ({', '.join(overridden)} overridden: {order.reason})" if overridden else ""
    if refusing:
        plural = "s refuse" if len(refusing) > 1 else " refuses"
        return f"{len(refusing)} gate{plural} {what}: {', '.join(refusing)}{beside}."
    return f"Every gate passes {what}{beside}."
