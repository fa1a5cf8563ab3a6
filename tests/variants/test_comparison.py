from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.variant import digest
from mlflow_yolo.variants.comparison import (
    Effort,
    Entry,
    Row,
    _reference,
    distinct,
    is_measured,
    is_worse_by_at_most,
    parent_of,
    predictions_file,
)
from tests.variants.made import a_comparison, a_dataset, a_row, a_variant


def names(*paths: str) -> list[str]:
    return [entry.name for entry in distinct([Entry(Path(path).name, Path(path)) for path in paths])]


def test_names_that_differ_stay() -> None:
    assert names("/a/m.pt", "/a/fp32-onnx", "/b/int8-onnx") == ["m.pt", "fp32-onnx", "int8-onnx"]


def test_a_name_that_occurs_twice_is_led_by_its_folder() -> None:
    assert names("/a/m.pt", "/a/fp32-onnx", "/b/fp32-onnx") == ["m.pt", "a-fp32-onnx", "b-fp32-onnx"]


def test_the_folder_of_ultralytics_checkpoints_is_the_one_above_weights() -> None:
    assert names("/one/weights/best.pt", "/two/weights/best.pt") == ["one-best.pt", "two-best.pt"]


def test_the_same_name_in_folders_of_the_same_name_is_numbered() -> None:
    assert names("/1/a/m.pt", "/2/a/m.pt", "/3/a/m.pt") == ["a-m.pt", "a-m.pt-2", "a-m.pt-3"]


def test_an_entry_keeps_its_path_size_and_variant() -> None:
    given = [Entry("m.pt", Path("/a/m.pt"), 96), Entry("m.pt", Path("/b/m.pt"), None, a_variant("fp32-onnx"))]
    for before, after in zip(given, distinct(given), strict=True):
        assert (after.path, after.imgsz, after.variant) == (before.path, before.imgsz, before.variant)


def test_the_reference_is_found_by_name_then_by_kind_and_is_else_the_first() -> None:
    onnx = Entry("a-fp32-onnx", Path("a"), None, a_variant("fp32-onnx"))
    entries = [Entry("m.pt", Path("m.pt"), 96), Entry("int8-onnx", Path("i"), None, a_variant("int8-onnx")), onnx]
    assert _reference(entries, "int8-onnx") == "int8-onnx"
    assert _reference(entries, "fp32-onnx") == "a-fp32-onnx"
    assert _reference(entries[:2], "fp32-onnx") == "m.pt"


@pytest.mark.parametrize("name", ["runs", "rounds", "threads"])
@pytest.mark.parametrize("value", [0, -1])
def test_an_effort_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(ArgumentError, match=f"{name}={value}"):
        Effort(**{name: value}).check()


def test_more_threads_than_cores_are_refused() -> None:
    Effort(threads=1).check()
    with pytest.raises(ArgumentError, match="threads=4096"):
        Effort(threads=4096).check()


def test_a_loss_is_counted_in_points_and_the_reference_loses_nothing() -> None:
    row = a_row("int8-onnx", change=(-0.005, -0.01, 0.0))
    assert is_worse_by_at_most(row, 0.5)
    assert not is_worse_by_at_most(row, 0.4)
    assert is_worse_by_at_most(a_row("fp32-onnx"), 0)
    assert not is_worse_by_at_most(a_row("fp32-onnx", error="broken"), 100)


def test_a_row_counts_as_measured_with_cost_and_scores() -> None:
    assert is_measured(a_row("fp32-onnx"))
    assert not is_measured(a_row("fp32-onnx", error="broken"))
    assert not is_measured(a_row("fp32-onnx", ms=float("nan")))


def test_an_entry_says_what_runs_it_and_at_which_size() -> None:
    kinds = {"int8-onnx": "ONNX Runtime", "bf16-openvino": "OpenVINO"}
    for kind, runtime in kinds.items():
        entry = Entry("x", Path("x"), None, a_variant(kind, imgsz=(96, 128)))
        assert (entry.kind, entry.runtime, entry.size) == (kind, runtime, (96, 128))
    checkpoint = Entry("m.pt", Path("m.pt"), 96)
    assert (checkpoint.kind, checkpoint.runtime, checkpoint.size) == ("pt", "PyTorch", (96, 96))


def parents(*rows: Row, reference: str = "fp32-onnx") -> dict[str, str | None]:
    """Return the name of each row's parent."""
    comparison = a_comparison(*rows, reference=reference)
    found = {row.entry.name: parent_of(row, comparison) for row in rows}
    return {name: parent.entry.name if parent else None for name, parent in found.items()}


def named(name: str, kind: str, sha256: str, **sources: str) -> Row:
    """Return a row of any name."""
    row = a_row(kind, sha256=sha256 * 64, sources=sources)
    return replace(row, entry=replace(row.entry, name=name))


def test_a_variant_is_judged_against_what_it_was_made_from() -> None:
    found = parents(
        a_row("m.pt"),
        named("fp32-onnx", "fp32-onnx", "1"),
        named("int8-onnx", "int8-onnx", "2", fp32_sha256="1" * 64),
        named("256px-fp32-onnx", "fp32-onnx", "3"),
        a_row("pruned.pt"),
        named("pruned-fp32-onnx", "fp32-onnx", "4"),
        named("pruned-int8-openvino", "int8-openvino", "5", onnx_sha256="4" * 64),
        named("qat", "int8-qat-onnx", "6"),
    )
    assert found == {
        "m.pt": None,
        "fp32-onnx": "m.pt",
        "int8-onnx": "fp32-onnx",
        "256px-fp32-onnx": "fp32-onnx",
        "pruned.pt": None,
        "pruned-fp32-onnx": "fp32-onnx",
        "pruned-int8-openvino": "pruned-fp32-onnx",
        "qat": "fp32-onnx",
    }


def test_a_variant_without_its_float32_beside_it_is_judged_against_the_checkpoint() -> None:
    found = parents(a_row("m.pt"), named("int8-onnx", "int8-onnx", "2", fp32_sha256="9" * 64), reference="m.pt")
    assert found["int8-onnx"] == "m.pt"
    assert parents(named("int8-onnx", "int8-onnx", "2"), reference="int8-onnx") == {"int8-onnx": None}


def test_the_reference_is_judged_against_its_own_checkpoint(tmp_path: Path) -> None:
    rows = [a_row("first.pt"), a_row("own.pt")]
    for row in rows:
        (tmp_path / row.entry.name).write_text(row.entry.name)
    rows = [replace(row, entry=replace(row.entry, path=tmp_path / row.entry.name)) for row in rows]
    own = digest(tmp_path / "own.pt")
    assert parents(*rows, named("fp32-onnx", "fp32-onnx", "1", checkpoint_sha256=own))["fp32-onnx"] == "own.pt"


def test_predictions_are_kept_by_bytes_data_split_and_size(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_text("1")
    entry, data = Entry("m.pt", tmp_path / "m.pt", 96), a_dataset()
    first = predictions_file(entry, data, "test", tmp_path)
    assert first.parent == tmp_path / "predictions"
    others = {
        predictions_file(entry, data, "val", tmp_path),
        predictions_file(replace(entry, imgsz=64), data, "test", tmp_path),
        predictions_file(entry, a_dataset(fingerprint="beef"), "test", tmp_path),
    }
    (tmp_path / "m.pt").write_text("2")
    others.add(predictions_file(entry, data, "test", tmp_path))
    assert len({first, *others}) == 5
