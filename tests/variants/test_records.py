import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlflow_yolo.registry.record import read_record
from mlflow_yolo.variants.comparison import Comparison, Row, predictions_file
from mlflow_yolo.variants.records import write_records
from tests.variants.made import a_comparison, a_row, correct


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Return a classifier's checkpoint, its float32 export that agrees on 3 of 4 images, and int8 that failed."""
    hits = {"m.pt": (1, 1, 0, 0), "fp32-onnx": (1, 1, 1, 0)}
    rows = [a_row("m.pt", ms=20.0), a_row("fp32-onnx", ms=10.0), a_row("int8-onnx", error="no kernel")]
    made = a_comparison(*(_placed(row, hits, tmp_path) for row in rows), task="classify")
    for row in made.rows[:2]:
        file = predictions_file(row.entry, made.dataset, "test", tmp_path / "out")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, true=np.zeros(4), probabilities=np.full((4, 2), len(row.entry.name)))
    return made


def _placed(row: Row, hits: dict[str, tuple[int, ...]], folder: Path) -> Row:
    path = folder / row.entry.name
    path.write_text(row.entry.name)
    found = hits.get(row.entry.name)
    return replace(row, entry=replace(row.entry, path=path), accuracy=correct(*found) if found else None)


def test_a_record_holds_the_variant_and_its_parent_measured_side_by_side(
    comparison: Comparison, tmp_path: Path
) -> None:
    (tmp_path / "out" / "runs" / "fp32-onnx").mkdir(parents=True)
    run = {"uid": "u", "run_id": "r1", "tracking_uri": "sqlite:///x"}
    (tmp_path / "out" / "runs" / "fp32-onnx" / "run.json").write_text(json.dumps(run))
    folders = write_records(comparison, tmp_path / "out", command="benchmark", more={"fp32-onnx": {"model.ir": "8"}})
    assert [folder.relative_to(tmp_path / "out").as_posix() for folder in folders] == [
        "benchmark/records/fp32-onnx",
        "benchmark/records/int8-onnx",
    ]
    record = read_record(folders[0])
    assert (record.variant.sha256, record.parent.name, record.parent.kind) == ("c" * 64, "m.pt", "pt")
    assert (record.variant.scores.metric, record.variant.scores.headline) == ("top1", 0.75)
    assert record.agreement == 0.75
    assert (record.run_id, record.about["command"], record.about["folder"]) == ("r1", "benchmark", "../fp32-onnx")
    assert record.tags["model.ir"] == "8"
    assert record.tags["parent.speedup"].startswith("2.00x [")
    assert record.tags["parent.change_points"].startswith("+25.00 [")
    assert record.parity is None, "its checkpoint is not one that it says it comes from"


def test_predictions_lie_beside_it_and_stale_ones_go(comparison: Comparison, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stale = out / "benchmark" / "records" / "int8-onnx" / "predictions.npz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a try before")
    mine, failed = write_records(comparison, out, command="compress")
    with np.load(mine / "predictions.npz") as own, np.load(mine / "parent_predictions.npz") as parents:
        assert own["probabilities"][0, 0] == len("fp32-onnx")
        assert parents["probabilities"][0, 0] == len("m.pt")
    assert not stale.exists()
    record = read_record(failed)
    assert (record.variant.scores, record.about["error"]) == (None, "no kernel")
    assert record.variant.cost.error == "no kernel"
    assert "parent.speedup" not in record.tags
