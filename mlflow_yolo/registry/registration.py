"""The command `register`: every benchmarked variant becomes a version of a registered model.

A version is made in one request, after its bytes lie complete in MLflow: whoever lists versions never sees half of one.
The same variant with the same benchmark is the same version, however often and by how many processes it is registered.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.figures.table import text_table
from mlflow_yolo.registry.candidates import Candidate, Failed, find_candidates
from mlflow_yolo.registry.description import model_text
from mlflow_yolo.registry.history import create_model
from mlflow_yolo.registry.logged_model import (
    TAG_IDENTITY,
    TAG_VERSIONS,
    identity,
    logged_model,
    remove_remains,
    run_of,
)
from mlflow_yolo.registry.store import plain_errors
from mlflow_yolo.registry.version_description import plot_link, version_text
from mlflow_yolo.registry.versions import list_versions
from mlflow_yolo.tracking.stores.addresses import is_http
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variant import Variant

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_ORDER = ("variant", "parent_version", "parent", "acc", "op", "model", "parity", "prune", "quant", "kd", "bench")
TAG_PARENT_VERSION = "parent_version"
"""Version of its parent, where that is registered."""


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name: The registered model.
        version: The version's number.
        variant: Its row in the comparison that measured it.
        kind: The variant's kind.
        sha256: Digest of its file.
        parent_version: Version of its parent, empty where that is not registered.
        is_new: Whether it was made now; False where it was there.
    """

    name: str
    version: str
    variant: str
    kind: str
    sha256: str
    parent_version: str
    is_new: bool


def run_register(
    client: "MlflowClient",
    *,
    name: str,
    variants: Sequence[Path],
    operating_point: Path | None = None,
    tracking: Target | None = None,
) -> str:
    """Register variants and return the lines to print; see `register`."""
    candidates, failed = find_candidates(variants)
    registered = _register(client, name, _at_point(candidates, operating_point), tracking)
    return _text(name, registered, failed)


def register(
    client: "MlflowClient", *, name: str, variants: Path | Sequence[Path], tracking: Target | None = None
) -> list[Registered]:
    """Make a version of every benchmarked variant, those that it was made from first.

    Args:
        client: Of the registry.
        name: The registered model, created where there is none.
        variants: Output folders of `compress` or `benchmark`, or variants' folders in one.
        tracking: Its experiment takes the runs of variants whose own run this store does not hold; None for `Default`.

    Returns:
        The versions, in the order in which they were registered; those that were there already are among them.

    Raises:
        CheckpointError: A variant was not measured, or its bytes have changed since; nothing has been written.
        ArgumentError: MLflow does not take the name.
        StoreError: The registry does not answer, or refuses.
    """
    candidates, _ = find_candidates([variants] if isinstance(variants, Path) else variants)
    return _register(client, name, candidates, tracking)


def _register(
    client: "MlflowClient", name: str, candidates: Sequence[Candidate], tracking: Target | None
) -> list[Registered]:
    with plain_errors(f"register {name}"), _alone(client, name):
        experiment_id = _experiment(client, tracking)
        create_model(client, name, experiment_id=experiment_id)
        known = list_versions(client, name)
        found = []
        for candidate in candidates:
            one = _known(candidate, known)
            made = one or _make(client, name, candidate, known, experiment_id)
            known.append(made)
            found.append(_registered(candidate, made, is_new=one is None))
        if client.get_registered_model(name).description != (text := model_text(client, name)):
            client.update_registered_model(name, text)
    return found


def _make(
    client: "MlflowClient", name: str, candidate: Candidate, known: Sequence["ModelVersion"], experiment_id: str
) -> "ModelVersion":
    """Log a variant, then make the version of it; after an error nothing of it is left."""
    run = run_of(client, candidate, experiment_id)
    remove_remains(client, candidate, run)
    parent = _parent(candidate, known)
    tags = _tags(candidate, run.info.run_id, parent)
    with logged_model(client, candidate, run) as model:
        plot = plot_link(model.model_id)
        text = version_text(candidate.record, tags, name=name, parent_version=parent, plot=plot)
        # A store that is reached without a server looks logged models up in MLflow's own tracking URI, not in the
        # client's, so there the place of the files is given.
        source = f"models:/{model.model_id}" if is_http(client.tracking_uri) else model.artifact_location
        version = client.create_model_version(
            name,
            source,
            run.info.run_id,
            tags=tags,
            description=text,
            model_id=model.model_id,
            await_creation_for=0,  # it is there at once; waiting would print
        )
    link = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(model.model_id, {TAG_VERSIONS: link})
    return version


@contextmanager
def _alone(client: "MlflowClient", name: str) -> Iterator[None]:
    """Keep other processes of this machine from registering the same model meanwhile."""
    place = hashlib.sha256(f"{client.tracking_uri} {name}".encode()).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else ""
    with FileLock(Path(tempfile.gettempdir()) / f"mlflow-yolo-register-{user}-{place}.lock"):
        yield


def _known(candidate: Candidate, known: Sequence["ModelVersion"]) -> "ModelVersion | None":
    same = [one for one in known if one.tags.get(TAG_IDENTITY) == identity(candidate)]
    return min(same, key=lambda one: int(one.version), default=None)


def _parent(candidate: Candidate, known: Sequence["ModelVersion"]) -> str:
    """Return the version of a variant's parent: of the same benchmark where there is one, else the newest."""
    parent = candidate.record.parent
    same = [one for one in known if parent is not None and one.tags.get("model.sha256") == parent.sha256]
    together = [one for one in same if one.tags.get("bench.id") == candidate.record.variant.cost.benchmark]
    found = max(together or same, key=lambda one: int(one.version), default=None)
    return str(found.version) if found is not None else ""


def _tags(candidate: Candidate, run_id: str, parent: str) -> dict[str, str]:
    """Return a version's tags, those that a reader looks for first first: MLflow's list shows them in this order."""
    record = candidate.record
    found = {
        **{name: value for name, value in record.tags.items() if not name.startswith("op.")},
        **_point_tags(candidate.variant),
        "variant.name": candidate.name,
        "variant.kind": candidate.variant.kind,
        TAG_IDENTITY: identity(candidate),
        "lineage.run_id": run_id,
        **({TAG_PARENT_VERSION: parent} if parent else {}),
    }
    if record.parity is not None:
        found |= {f"parity.{name}": f"{record.parity[name]:.6g}" for name in ("score_max", "box_max_px")}
    rank = {part: place for place, part in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda one: rank.get(one[0].split(".")[0], len(rank))))


def _point_tags(variant: Variant) -> dict[str, str]:
    point = {name: value for name, value in variant.operating_point.items() if value not in (None, "", {}, [])}
    return {
        f"op.{name}": (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:4000]
        for name, value in point.items()
    }


def _experiment(client: "MlflowClient", tracking: Target | None) -> str:
    if tracking is None or (tracking.experiment is None and tracking.experiment_id is None):
        return "0"
    if tracking.experiment is None:
        return str(tracking.experiment_id)
    found = client.get_experiment_by_name(tracking.experiment)
    return str(found.experiment_id if found is not None else client.create_experiment(tracking.experiment))


def _at_point(candidates: Sequence[Candidate], file: Path | None) -> list[Candidate]:
    """Return the candidates, the one that an `operating_point.json` is about with its thresholds.

    Raises:
        ArgumentError: The file cannot be read, or is about none of them.
    """
    if file is None:
        return list(candidates)
    try:
        point = json.loads(file.expanduser().read_text(encoding="utf-8"))
        sha256 = point["model_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"operating_point={file} cannot be read ({error}). Name the operating_point.json of thresholds."
        ) from error
    if sha256 not in {one.variant.sha256 for one in candidates}:
        raise ArgumentError(
            f"operating_point={file} is for the model {str(sha256)[:12]}, which is none of these variants. "
            "Run thresholds with --model <variant's folder>."
        )
    return [
        replace(one, variant=replace(one.variant, operating_point=point)) if one.variant.sha256 == sha256 else one
        for one in candidates
    ]


def _registered(candidate: Candidate, version: "ModelVersion", *, is_new: bool) -> Registered:
    return Registered(
        name=version.name,
        version=str(version.version),
        variant=candidate.name,
        kind=candidate.variant.kind,
        sha256=candidate.variant.sha256,
        parent_version=version.tags.get(TAG_PARENT_VERSION, ""),
        is_new=is_new,
    )


def _text(name: str, registered: Sequence[Registered], failed: Sequence[Failed]) -> str:
    rows = [
        [
            int(one.version),
            one.variant,
            one.sha256[:12],
            one.parent_version or None,
            "new" if one.is_new else "was there",
        ]
        for one in registered
    ]
    table = text_table([f"{name} version", "variant", "sha256", "parent", ""], rows)
    left_out = [f"{one.name} is not registered, it could not be measured: {one.reason.rstrip('.')}." for one in failed]
    return "\n".join([table, *([""] if left_out else []), *left_out])
