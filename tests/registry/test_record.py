import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.record import RECORD_FILE, Record, read_record, write_record
from tests.registry.measured import CHECKPOINT, measured


def a_record() -> Record:
    parity = {"score_max": 1e-6, "box_max_px": math.inf, "n_images": 16}
    mine = measured("int8", "int8-onnx", "b" * 64, ms=5.0)
    return Record(mine, CHECKPOINT, 0.9, parity, "r1", {"model.sha256": "b" * 64}, {"data": "shapes"})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    record = a_record()
    write_record(tmp_path / "new" / "folder", record)
    found = read_record(tmp_path / "new" / "folder")
    assert repr(found) == repr(
        replace(record, parity={**record.parity, "n_images": 16.0})
    )  # nan is not equal to itself
    assert found.variant.cost.throughput == {1: 200.0, 4: 220.0}, "JSON's keys are text, batch sizes are numbers"
    assert found.variant.cost.hardware.fingerprint == record.variant.cost.hardware.fingerprint


def test_a_record_is_strict_json_without_nan(tmp_path: Path) -> None:
    write_record(tmp_path, a_record())

    def refuse(word: str) -> None:
        raise AssertionError(word)

    content = json.loads((tmp_path / RECORD_FILE).read_text(), parse_constant=refuse)
    assert content["variant"]["scores"]["per_class"] == {"bright": 0.6, "dark": 0.4, "absent": None}


def test_a_failed_variant_without_parent_has_a_record(tmp_path: Path) -> None:
    write_record(tmp_path, Record(measured("x", "fp16-onnx", "c" * 64, error="no kernel")))
    found = read_record(tmp_path)
    assert (found.parent, found.parity, found.run_id, found.variant.scores) == (None, None, None, None)
    assert math.isnan(found.agreement)
    assert math.isnan(found.variant.cost.latency_p50_ms)


def test_the_worst_class_is_one_that_occurs() -> None:
    scores = CHECKPOINT.scores
    assert scores is not None
    assert scores.worst_class == ("dark", 0.4)
    assert scores.headline == 0.5
    name, value = replace(scores, per_class={"absent": math.nan}).worst_class
    assert name == ""
    assert math.isnan(value)


def test_a_folder_without_record_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mlflow-yolo benchmark"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"sha256"', '"sha"'),
        lambda text: text.replace('"cores": 4', '"kernels": 4'),
        lambda text: text.replace('"metric": "mAP50-95"', '"metric": "top1"'),
        lambda text: text.replace('"latency_p50_ms": 5.0', '"latency_p50_ms": "fast"'),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, damage) -> None:
    file = write_record(tmp_path, a_record())
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)
