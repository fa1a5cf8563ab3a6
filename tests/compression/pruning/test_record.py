import json

from mlflow_yolo.compression.pruning.record import UNSTRUCTURED, PruningRecord
from mlflow_yolo.compression.pruning.size import Width


def record(**fields):
    given = {
        "method": "structured",
        "ratio": 0.5,
        "ratio_reached": 0.4,
        "parameters_before": 10,
        "parameters_after": 4,
        "macs_before": 100,
        "macs_after": 25,
        "size_mb_before": 2.0,
        "size_mb_after": 1.0,
        "widths": (Width(0, "model.0", 8, 4), Width(1, "model.1.cv1", 8, 8), Width(1, "model.1.cv2", 6, 2)),
        "imgsz": 64,
        "parts": {"neck": 0.2},
    }
    return PruningRecord(**{**given, **fields})


def test_record_survives_json():
    assert PruningRecord.from_json(json.loads(json.dumps(record().to_json()))) == record()


def test_blocks_add_up_their_layers():
    assert record().block_widths() == {0: (8, 4), 1: (14, 10)}
    assert record().macs_ratio == 0.25


def test_table_has_a_row_for_every_layer():
    frame = record().to_frame()
    assert list(frame.columns) == ["block", "layer", "before", "after"]
    assert frame.values.tolist() == [[0, "model.0", 8, 4], [1, "model.1.cv1", 8, 8], [1, "model.1.cv2", 6, 2]]
    assert list(record(widths=()).to_frame().columns) == ["block", "layer", "before", "after"]


def test_only_unstructured_pruning_needs_a_note():
    assert record().note == ""
    assert record(method="unstructured").note == UNSTRUCTURED
