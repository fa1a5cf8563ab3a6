"""What MLflow's page of a registered model says: which version ships for which target, and why."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_yolo.registry.markdown import MOST_CHARACTERS, fit, safe, spaced_table
from mlflow_yolo.registry.versions import list_versions, page_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_MOST_ROWS = 60
_JUDGED = ("pass", "fail")  # a gate may be off
_ROLES = ("champion", "challenger", "previous")


def model_text(client: "MlflowClient", name: str) -> str:
    """Return the description of a registered model: which version ships for which target, why, and all others.

    Args:
        client: Of the registry.
        name: The model, which exists.

    Returns:
        Markdown of at most `MOST_CHARACTERS`; the oldest versions are left out where they do not fit.
    """
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    versions = {str(one.version): one for one in list_versions(client, name)}
    champions = {alias: n for alias, n in aliases.items() if alias.startswith("champion-") and n in versions}
    parts = [_ships(name, alias, versions[number]) for alias, number in sorted(champions.items())]
    if not champions:
        parts = [f"No version of `{name}` ships yet. Promote one: `mlflow-yolo promote --name {name} --version N`."]
    parts.append(
        f"Who promoted what, when and why: `mlflow-yolo history {name}`. "
        "Speed and score are against the version's parent, measured in the same benchmark; in brackets 95 % intervals."
    )
    for n in range(min(len(versions), _MOST_ROWS), -1, -1):
        text = "\n\n".join([*parts, _versions_table(list(versions.values()), aliases, n)])
        if len(text) <= MOST_CHARACTERS:
            return text
    return fit(parts)


def _ships(name: str, alias: str, version: "ModelVersion") -> str:
    """Return why a version ships for a target."""
    target, tags = alias.removeprefix("champion-"), version.tags
    lines = [f"### {alias}: version {version.version}, {tags.get('variant.kind', 'unknown kind')}"]
    lines.append(
        f"Version [{version.version}]({page_of(name, version.version)}) ships for **{safe(target)}**: "
        f"{_tag_ms(tags)}, {_number(tags.get('model.size_mb'), '.1f') or '?'} MB, {_tag_score(tags)}; "
        f"{_beside(tags)}.{_gates(tags)}{_promoted(tags, target)}"
    )
    return "\n\n".join(lines)


def _beside(tags: Mapping[str, str]) -> str:
    if "parent.name" not in tags:
        return "it has no parent"
    who = f"version {tags['parent_version']}" if "parent_version" in tags else "not registered"
    parts = [f"{tags['parent.speedup']} as fast" if "parent.speedup" in tags else ""]
    parts.append(f"{tags['parent.change_points']} points" if "parent.change_points" in tags else "")
    return f"{' and '.join(filter(None, parts))} against its parent {safe(tags['parent.name'])} ({who})"


def _gates(tags: Mapping[str, str]) -> str:
    found = {key.removeprefix("gate."): value for key, value in tags.items() if key.startswith("gate.")}
    gates = {gate: value for gate, value in found.items() if value.startswith(_JUDGED)}
    failed = sorted(gate for gate, value in gates.items() if value.startswith("fail"))
    if not gates:
        return ""
    passed = f" {len(gates) - len(failed)} of {len(gates)} gates passed."
    return f"{passed} Failed: {', '.join(failed)}." if failed else f" All {len(gates)} gates passed."


def _promoted(tags: Mapping[str, str], target: str) -> str:
    about = {key.removeprefix(f"promotion.{target}."): value for key, value in tags.items()}
    if "by" not in about:
        return ""
    instead = about.get("instead_of", "none")
    text = f" Promoted by {safe(about['by'])} on {about.get('at', '')[:16].replace('T', ' ')} UTC"
    text += f" instead of version {instead}" if instead != "none" else ""
    text += f"; overridden: {about['overrides']}" if about.get("overrides") else ""
    return f"{text}{': ' + safe(about['reason']) if about.get('reason') else ''}."


def _versions_table(versions: Sequence["ModelVersion"], aliases: Mapping[str, str], n: int) -> str:
    """Return the newest `n` versions, those with an alias in any case, as a table."""
    rank = {role: place for place, role in enumerate(_ROLES)}
    named: dict[str, list[str]] = {}
    for alias, number in sorted(aliases.items(), key=lambda one: rank.get(one[0].split("-")[0], 9)):
        named.setdefault(number, []).append(alias)
    shown = [one for place, one in enumerate(versions) if place < n or str(one.version) in named]
    rows = [_row(one, named.get(str(one.version), [])) for one in sorted(shown, key=lambda one: -int(one.version))]
    columns = ["version", "alias", "variant", "p50 ms", "MB", _metric_of(versions), "speed", "points"]
    left_out = len(versions) - len(shown)
    return spaced_table(columns, rows) + (f"\n\n{left_out} older versions are not shown." if left_out else "")


def _row(version: "ModelVersion", aliases: Sequence[str]) -> list[Any]:
    tags = version.tags
    return [
        int(version.version),
        ", ".join(aliases) or None,
        tags.get("variant.name") or tags.get("variant.kind"),
        _number(tags.get("bench.p50_ms"), ".1f"),
        _number(tags.get("model.size_mb"), ".1f"),
        _number(tags.get(f"acc.{_metric_of([version])}"), ".4f"),
        tags.get("parent.speedup"),
        tags.get("parent.change_points"),
    ]


def _metric_of(versions: Sequence["ModelVersion"]) -> str:
    return "top1" if any("acc.top1" in one.tags for one in versions) else "mAP50-95"


def _number(text: str | None, form: str) -> str | None:
    return format(float(text), form) if text is not None else None


def _tag_ms(tags: Mapping[str, str]) -> str:
    p50, p95 = (_number(tags.get(f"bench.{name}_ms"), ".1f") for name in ("p50", "p95"))
    return f"{p50} ms (p95 {p95} ms)" if p50 and p95 else "latency not known"


def _tag_score(tags: Mapping[str, str]) -> str:
    metric = "top1" if "acc.top1" in tags else "mAP50-95"
    if f"acc.{metric}" not in tags:
        return "no score"
    return f"{metric} {float(tags[f'acc.{metric}']):.4f} on {tags.get('acc.split', '?')}"
