from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.fetching import Fetched, fetch
from mlflow_yolo.registry.gates.evidence import read_evidence
from mlflow_yolo.registry.gates.file_gates import metadata
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from tests.registry.gates.made import a_version, images, measure

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def registered(client: "MlflowClient", version: Fetched, **tags: str) -> Fetched:
    """Register a version's files as the next version of `shapes`, and fetch it."""
    model = version.folder.parent
    (model / "MLmodel").write_text(f"flavors: {{yolo: {{sha256: {version.sha256}}}}}\n")
    if not client.search_registered_models("name = 'shapes'"):
        client.create_registered_model("shapes")
    made = client.create_model_version("shapes", source=str(model), tags={**version.tags, **tags})
    return fetch(f"models:/shapes/{made.version}", client=client)


@pytest.fixture
def parent(client: "MlflowClient", tmp_path: Path) -> Fetched:
    return registered(client, measure(a_version(tmp_path / "1", kind="fp32-onnx"), images(40), ms=20.0))


def test_a_registered_version_is_judged_by_what_was_stored_with_it(
    client: "MlflowClient", parent: Fetched, tmp_path: Path
) -> None:
    own = measure(a_version(tmp_path / "2"), images(40), images(40))
    candidate = registered(client, own, parent_version=parent.version)
    found = read_evidence(client, candidate, parent)
    assert found.parent is not None
    assert found.parent.uri == "models:/shapes/1"
    assert found.candidate.record.variant.kind == "int8-onnx"
    assert found.champion is not None
    assert found.champion.record.variant.kind == "fp32-onnx"
    verdicts = {one.gate: one for one in judge(found, Limits())}
    # The hand-made benchmark names another processor than this one.
    assert [gate for gate, one in verdicts.items() if not one.passed] == ["speedup"]
    assert verdicts["champion_drop"].value == "+0.00 [+0.00, +0.00]"


def test_a_version_without_parent_or_champion_has_none(client: "MlflowClient", parent: Fetched) -> None:
    found = read_evidence(client, parent, None)
    assert (found.parent, found.champion, found.parent_note) == (None, None, "")


def test_a_parent_that_was_deleted_is_said_and_refuses_nothing(
    client: "MlflowClient", parent: Fetched, tmp_path: Path
) -> None:
    candidate = registered(client, measure(a_version(tmp_path / "2"), images(4)), parent_version=parent.version)
    client.delete_model_version("shapes", parent.version)
    found = read_evidence(client, candidate, None)
    assert found.parent is None
    verdict = metadata(found, Limits())
    assert verdict.passed
    assert "models:/shapes/1" in verdict.why


def test_nothing_is_read_before_it_is_asked_for(client: "MlflowClient", parent: Fetched) -> None:
    (parent.benchmark / "record.json").unlink()
    found = read_evidence(client, parent, None)
    with pytest.raises(CheckpointError, match=r"record\.json"):
        _ = found.candidate.record
