import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import Variant, read_variant, write_variant
from mlflow_yolo.variants import making
from mlflow_yolo.variants.making import INT8_KINDS, Orders, make_variant, missing_extra, parse_kinds
from tests.variants.made import a_subject, a_variant


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    """Return how variants of a checkpoint that is never opened are to be made."""
    return Orders(a_subject(tmp_path / "m.pt"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, orders: Orders) -> list[Path]:
    """Let fp16 be made of four bytes, without a checkpoint or data; return the folders in which it was."""
    calls: list[Path] = []

    def maker(folder: Path, given: Orders, base: Path | None) -> Variant:
        calls.append(folder)
        (folder / "model.onnx").write_bytes(b"half")
        sources = {"checkpoint_sha256": given.subject.model.sha256}
        return write_variant(folder, a_variant("fp16-onnx", sources=sources))

    monkeypatch.setattr(making, "_MAKERS", {"fp16-onnx": maker})
    monkeypatch.setattr(making, "_operating_point", lambda folder, orders: {"conf": 0.25})
    return calls


def test_kinds_are_read_in_their_order_once() -> None:
    assert parse_kinds(" fp16-onnx, fp32-onnx,,fp16-onnx") == ("fp16-onnx", "fp32-onnx")


@pytest.mark.parametrize("text", ["", " , ", "int4", "fp32-onnx,int4"])
def test_a_list_without_a_known_kind_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="format="):
        parse_kinds(text)
    with pytest.raises(ArgumentError, match="kinds="):
        parse_kinds(text, argument="kinds")


def test_a_kind_of_another_command_is_unknown_here() -> None:
    with pytest.raises(ArgumentError, match=r"format=fp32-onnx does not exist. Use one or more of int8-onnx"):
        parse_kinds("fp32-onnx", INT8_KINDS)


def test_what_has_to_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_extra("fp32-onnx") == ""
    assert missing_extra("bf16-openvino") == "openvino: pip install 'mlflow-yolo[openvino]'."
    assert missing_extra("int8-openvino").startswith("openvino and nncf: ")


def test_a_variant_has_its_operating_point(made: list[Path], orders: Orders, tmp_path: Path) -> None:
    folder = make_variant("fp16-onnx", tmp_path / "v" / "fp16-onnx", orders)
    assert read_variant(folder).operating_point == {"conf": 0.25}
    assert os.listdir(tmp_path / "v") == ["fp16-onnx"]


def test_what_is_made_is_not_made_again(made: list[Path], orders: Orders, tmp_path: Path) -> None:
    for _ in range(2):
        make_variant("fp16-onnx", tmp_path / "fp16-onnx", orders)
    assert len(made) == 1


@pytest.mark.parametrize("change", ["another checkpoint", "changed bytes", "another kind", "something else"])
def test_a_folder_that_holds_anything_else_is_refused_and_left(
    made: list[Path], orders: Orders, tmp_path: Path, change: str
) -> None:
    folder = make_variant("fp16-onnx", tmp_path / "fp16-onnx", orders)
    changes: dict[str, Any] = {
        "another checkpoint": {"sources": {"checkpoint_sha256": "other"}},
        "another kind": {"kind": "fp32-onnx", "sources": {"checkpoint_sha256": orders.subject.model.sha256}},
    }
    if change in changes:
        write_variant(folder, a_variant(**{"kind": "fp16-onnx", **changes[change]}))
    elif change == "changed bytes":
        (folder / "model.onnx").write_bytes(b"hall")
    else:
        (folder / "variant.json").unlink()
    before = sorted(folder.iterdir())
    with pytest.raises(ArgumentError, match="fp16-onnx is not empty"):
        make_variant("fp16-onnx", folder, orders)
    assert sorted(folder.iterdir()) == before


def test_a_maker_that_fails_midway_leaves_nothing(
    made: list[Path], orders: Orders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, given: Orders, base: Path | None) -> Variant:
        (folder / "model.onnx").write_bytes(b"ha")
        raise RuntimeError("no")

    monkeypatch.setattr(making, "_MAKERS", {"fp16-onnx": fail})
    with pytest.raises(RuntimeError, match="no"):
        make_variant("fp16-onnx", tmp_path / "v" / "fp16-onnx", orders)
    assert os.listdir(tmp_path / "v") == []


def test_what_a_killed_process_left_half_made_is_removed_and_its_neighbours_are_not(
    made: list[Path], orders: Orders, tmp_path: Path
) -> None:
    for name in (".fp16-onnx.0123abcd", ".pruned-fp16-onnx.0123abcd", "fp32-onnx"):
        (tmp_path / "v" / name).mkdir(parents=True)
    make_variant("fp16-onnx", tmp_path / "v" / "fp16-onnx", orders)
    assert sorted(os.listdir(tmp_path / "v")) == [".pruned-fp16-onnx.0123abcd", "fp16-onnx", "fp32-onnx"]


def test_int8_is_scored_on_the_split_that_choices_are_made_on(
    orders: Orders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def measure(opened: Any, dataset: Any, split: str) -> Any:
        asked.append(split)
        return type("Accuracy", (), {"headline": ("mAP50-95", 0.5)})()

    monkeypatch.setattr(making, "measure_accuracy", measure)
    assert orders.score(tmp_path) == 0.5
    assert asked == ["val"]
