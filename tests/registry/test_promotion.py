"""The way to champion: judged, moved, written down; or refused, and nothing moved. The files are none that run."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.history import read_history
from mlflow_yolo.registry.promotion import Order, Promotion, promote
from mlflow_yolo.registry.registration import register
from tests.registry.measured import HARDWARE, write_output

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ON_PAPER = replace(Limits().only(("latency", "size")), hardware=HARDWARE.fingerprint)
"""Gates that read the record alone; its p95 are 11 and 6 ms."""


@pytest.fixture
def registered(client: "MlflowClient", tmp_path: Path) -> list[str]:
    """Return the versions of `cells`: fp32-onnx and int8-onnx."""
    return [one.version for one in register(client, name="cells", variants=write_output(tmp_path / "out"))]


def order(version: str, **changes: object) -> Order:
    return replace(Order("cells", version, "cpu", ON_PAPER), **changes)


def decide(client: "MlflowClient", store: str, wanted: Order) -> Promotion:
    return promote(client, wanted, tracking_uri=store, by="anna")


def test_a_version_that_passes_is_champion_and_says_why(
    client: "MlflowClient", store: str, registered: list[str]
) -> None:
    found = decide(client, store, order("1", limits=replace(ON_PAPER, p95_ms=20.0)))
    assert not found.refused
    assert "version 1 is champion-cpu now" in found.outcome
    assert [(one.gate, one.passed) for one in found.verdicts if one.limit != "off"] == [
        ("latency", True),
        ("size", True),
    ]
    version = client.get_model_version("cells", "1")
    assert version.tags["gate.latency"].startswith("pass p95 11")
    assert version.tags["gate.speedup"] == "off"
    assert (version.tags["promotion.cpu.by"], version.tags["promotion.cpu.instead_of"]) == ("anna", "none")
    assert str(client.get_model_version_by_alias("cells", "champion-cpu").version) == "1"
    assert "champion-cpu" in client.get_registered_model("cells").description


def test_one_gate_that_refuses_moves_nothing_and_is_kept(
    client: "MlflowClient", store: str, registered: list[str]
) -> None:
    decide(client, store, order("1"))
    found = decide(client, store, order("2", limits=replace(ON_PAPER, p95_ms=5.0)))
    assert found.refused
    assert found.entry is None
    assert "latency" in found.outcome
    assert "Nothing was moved" in found.outcome
    history = read_history(client, "cells")
    assert history.aliases == {"champion-cpu": "1"}
    assert len(history.entries) == 1
    tags = client.get_model_version("cells", "2").tags
    assert tags["gate.latency"].startswith("fail")
    assert not [key for key in tags if key.startswith("promotion.")]


def test_a_dry_run_shows_the_verdict_and_writes_nothing(
    client: "MlflowClient", store: str, registered: list[str]
) -> None:
    before = client.get_model_version("cells", "1").tags
    good, bad = (
        decide(client, store, order("1", dry_run=True, limits=replace(ON_PAPER, p95_ms=floor))) for floor in (20.0, 5.0)
    )
    assert (good.refused, bad.refused) == (False, True)
    assert "Dry run" in good.outcome
    assert "Dry run" in bad.outcome
    assert client.get_model_version("cells", "1").tags == before
    assert read_history(client, "cells").entries == ()


def test_an_override_lets_its_gate_fail_and_is_written_down(
    client: "MlflowClient", store: str, registered: list[str]
) -> None:
    strict = replace(ON_PAPER, p95_ms=5.0, size_mb=1e-9)
    wanted = order("1", limits=strict, overrides=("latency", "size"), reason="the camera has room")
    assert decide(client, store, replace(wanted, overrides=("size",))).refused
    found = decide(client, store, wanted)
    assert found.entry is not None
    assert found.entry.overrides == ("latency", "size")
    (entry,) = read_history(client, "cells").entries
    assert (entry.reason, entry.overrides) == ("the camera has room", ("latency", "size"))
    tags = client.get_model_version("cells", "1").tags
    assert tags["gate.size"].startswith("fail")
    assert tags["promotion.cpu.overrides"] == "latency,size"
    assert tags["promotion.cpu.reason"] == "the camera has room"


def test_a_gate_that_passed_is_not_called_overridden(client: "MlflowClient", store: str, registered: list[str]) -> None:
    found = decide(client, store, order("1", overrides=("size",), reason="to be sure"))
    assert found.entry is not None
    assert found.entry.overrides == ()


def test_the_newest_version_is_taken_where_none_is_named(
    client: "MlflowClient", store: str, registered: list[str]
) -> None:
    found = decide(client, store, order("auto"))
    assert found.entry is not None
    assert found.entry.version == max(registered, key=int)


def test_a_challenger_has_to_run_not_to_be_better(client: "MlflowClient", store: str, registered: list[str]) -> None:
    decide(client, store, order("1"))
    strict = replace(Limits(), accuracy_floor=0.9, off=frozenset({"integrity", "metadata", "smoke"}))
    found = decide(client, store, order("2", limits=strict, challenger=True))
    assert not found.refused
    assert read_history(client, "cells").aliases == {"champion-cpu": "1", "challenger-cpu": "2"}
    assert decide(client, store, order("2", limits=Limits(), challenger=True)).refused  # its file is none that runs


def test_the_champion_itself_is_not_promoted_again(client: "MlflowClient", store: str, registered: list[str]) -> None:
    decide(client, store, order("1"))
    found = decide(client, store, order("1"))
    assert found.entry is None
    assert not found.refused
    assert "already" in found.outcome
    assert len(read_history(client, "cells").entries) == 1


def test_a_champion_whose_bytes_were_changed_can_be_replaced_by_saying_so(
    client: "MlflowClient", store: str, registered: list[str], tmp_path: Path
) -> None:
    decide(client, store, order("1"))
    (file,) = [path for path in tmp_path.rglob("artifacts/variant/model.onnx") if path.read_bytes() == b"fp32-onnx"]
    file.write_bytes(b"another")
    shutil.rmtree(os.environ["MLFLOW_YOLO_CACHE"] + "/models", ignore_errors=True)
    limits = ON_PAPER.only(("latency", "size", "champion_drop"))
    limits = replace(limits, off=limits.off - {"champion_drop"})
    found = decide(client, store, order("2", limits=limits))
    assert found.refused
    (verdict,) = [one for one in found.verdicts if one.gate == "champion_drop"]
    assert "sha256" in verdict.why
    found = decide(client, store, order("2", limits=limits, overrides=("champion_drop",), reason="it is broken"))
    assert found.entry is not None
    assert found.entry.overrides == ("champion_drop",)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (Order("cells", "99", "cpu", ON_PAPER), "99"),
        (Order("nobody", "1", "cpu", ON_PAPER), "nobody"),
        (Order("cells", "seven", "cpu", ON_PAPER), "version=seven"),
        (Order("cells", "1", "c p u", ON_PAPER), "target=c p u"),
        (Order("cells", "1", "cpu", ON_PAPER, overrides=("speed",), reason="why"), "override=speed"),
        (Order("cells", "1", "cpu", ON_PAPER, overrides=("speedup",)), "reason"),
    ],
)
def test_what_cannot_be_promoted_is_named_and_nothing_moved(
    client: "MlflowClient", store: str, registered: list[str], wanted: Order, named: str
) -> None:
    with pytest.raises(ArgumentError, match=named) as caught:
        decide(client, store, wanted)
    assert "\n" not in str(caught.value)
    assert read_history(client, "cells").entries == ()
