from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_yolo.registry.description import model_text
from mlflow_yolo.registry.markdown import MOST_CHARACTERS

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

TAGS = {
    "variant.name": "int8-onnx",
    "variant.kind": "int8-onnx",
    "bench.p50_ms": "5",
    "bench.p95_ms": "6.04",
    "model.size_mb": "3.123",
    "acc.mAP50-95": "0.496000",
    "acc.split": "test",
    "parent.name": "fp32-onnx",
    "parent.speedup": "2.00x [1.90, 2.10]",
    "parent.change_points": "-0.40 [-0.80, +0.10]",
    "parent_version": "1",
}


@pytest.fixture
def shipped(client: "MlflowClient", cells: str) -> str:
    """Return a model whose version 3 is champion on cpu."""
    for key, value in TAGS.items():
        client.set_model_version_tag(cells, "3", key, value)
    client.set_registered_model_alias(cells, "champion-cpu", "3")
    client.set_registered_model_alias(cells, "previous-cpu", "2")
    return cells


def test_a_reader_sees_which_version_ships_and_its_numbers(client: "MlflowClient", shipped: str) -> None:
    text = model_text(client, shipped)
    assert "champion-cpu: version 3, int8-onnx" in text
    assert "5.0 ms (p95 6.0 ms), 3.1 MB, mAP50-95 0.4960 on test" in text
    assert "2.00x [1.90, 2.10] as fast and -0.40 [-0.80, +0.10] points against its parent fp32-onnx (version 1)" in text
    assert "[3](#/models/cells/versions/3)" in text
    lines = [line for line in text.splitlines() if line.startswith("| 2 ")]
    assert len(lines) == 1
    assert "previous-cpu" in lines[0]


def test_why_it_was_promoted_is_said(client: "MlflowClient", shipped: str) -> None:
    about = {"by": "anna", "at": "2026-01-02T03:04:05.678+00:00", "instead_of": "2", "reason": "fast *enough*"}
    about |= {"overrides": "size"}
    for key, value in about.items():
        client.set_model_version_tag(shipped, "3", f"promotion.cpu.{key}", value)
    for gate, value in {"size": "fail 9 MB <= 5 MB", "latency": "pass 6 ms <= 9 ms", "memory": "off"}.items():
        client.set_model_version_tag(shipped, "3", f"gate.{gate}", value)
    text = model_text(client, shipped)
    assert "1 of 2 gates passed. Failed: size." in text
    assert "Promoted by anna on 2026-01-02 03:04 UTC instead of version 2; overridden: size: fast \\*enough\\*." in text


def test_every_target_has_its_own_champion(client: "MlflowClient", shipped: str) -> None:
    client.set_registered_model_alias(shipped, "champion-gpu", "5")
    text = model_text(client, shipped)
    assert text.index("champion-cpu: version 3") < text.index("champion-gpu: version 5, unknown kind")
    assert "latency not known" in text


def test_a_model_that_ships_nowhere_says_what_to_do(client: "MlflowClient", cells: str) -> None:
    assert "mlflow-yolo promote --name cells" in model_text(client, cells)


def test_many_versions_fit_into_what_mlflow_holds_and_those_with_an_alias_stay(
    client: "MlflowClient", make_versions: Callable[[str, int], list[str]], tmp_path: Path
) -> None:
    make_versions("many", 1)
    for version in range(2, 31):
        tags = {"variant.name": f"variant {version} " + "x" * 150}
        client.create_model_version("many", source=str(tmp_path), tags=tags)
    client.set_registered_model_alias("many", "champion-cpu", "1")
    text = model_text(client, "many")
    assert len(text) <= MOST_CHARACTERS
    assert "| 30 |" in text
    assert "| 1 |" in text
    assert "older versions are not shown" in text
