"""What a training leaves behind, from measurements made by hand."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.datasets.dataset import load_dataset
from mlflow_yolo.detection.samples import Sample, load_samples
from mlflow_yolo.tracking.events.command_run import log_dataset
from mlflow_yolo.tracking.events.final_values import FinalValues, per_class_metrics
from mlflow_yolo.training import results
from mlflow_yolo.training.block_table import BlockRow
from mlflow_yolo.training.measurement import Measurement

if TYPE_CHECKING:
    from tests.conftest import RecordedRun

BOX = np.array([[1.0, 2.0, 30.0, 40.0]])
SAMPLE = Sample("a.png", 64, 64, BOX, np.array([0]), BOX, np.array([0.75]), np.array([0]))


def measurement(split: str, value: float, *, with_boxes: bool = True) -> Measurement:
    per_class = {"a/b": {"AP50": 0.9, "AP50-95": value}} if with_boxes else {}
    values = {"mAP50-95": value} if with_boxes else {"top1": value}
    return Measurement(
        split=split,
        final=FinalValues(values, per_class),
        by_size={"AP-small": value / 2} if with_boxes else {},
        samples=[SAMPLE] if with_boxes else [],
        labels=np.zeros((0, 2), dtype=np.int64) if with_boxes else np.array([[0, 1], [1, 1]]),
        n_images=1 if with_boxes else 2,
    )


def test_predictions_come_back_as_they_were_and_values_are_json(tmp_path: Path) -> None:
    measured = {"val": measurement("val", 0.5), "test": measurement("test", 0.25)}

    found = results.keep_measurements(measured, tmp_path, n_classes=1)

    assert json.loads(json.dumps(found)) == found
    assert found["predictions"] == {"val": "predictions/val.npz", "test": "predictions/test.npz"}
    (sample,) = load_samples(tmp_path / found["predictions"]["test"])
    np.testing.assert_array_equal(sample.boxes, BOX)
    assert found["measured"]["test"] == {
        "values": {"mAP50-95": 0.25, "AP-small": 0.125},
        "per_class": {"a/b": {"AP50": 0.9, "AP50-95": 0.25}},
        "n_images": 1,
    }
    assert found["operating_conf"] == 0.75  # the one detection is right, so from its confidence on F1 is 1


def test_labels_of_a_classifier_are_kept_and_it_has_no_confidence(tmp_path: Path) -> None:
    found = results.keep_measurements({"val": measurement("val", 0.5, with_boxes=False)}, tmp_path, n_classes=2)

    with np.load(tmp_path / "predictions" / "val.npz") as file:
        assert file["labels"].tolist() == [[0, 1], [1, 1]]
    assert "operating_conf" not in found


def test_values_that_callbacks_cannot_know_are_logged_once(recorded_run: "RecordedRun") -> None:
    result = {
        "final": {"mAP50-95": 0.5, "AP-small": 0.25},
        "measured": {"test": {"values": {"mAP50-95": 0.4}, "per_class": {"a/b": {"AP50-95": 0.3}}}},
        "overfit_gap": 0.1,
    }

    results.log_results(recorded_run, result)

    expected = {"final/AP-small": 0.25, "test/mAP50-95": 0.4, "test/AP50-95/a_b": 0.3, "overfit_gap": 0.1}
    assert recorded_run.metrics == [(0, expected)]


def test_without_a_test_split_nothing_is_called_test(recorded_run: "RecordedRun") -> None:
    results.log_results(recorded_run, {"final": {"mAP50-95": 0.5}, "measured": {"val": {}}, "overfit_gap": 0.1})

    assert recorded_run.metrics == [(0, {"overfit_gap": 0.1})]


@pytest.mark.parametrize(("n_classes", "n_keys"), [(0, 0), (20, 20), (21, 0)])
def test_more_than_twenty_classes_are_in_the_table_only(n_classes: int, n_keys: int) -> None:
    per_class = {f"class {i}": {"AP50-95": 0.5} for i in range(n_classes)}

    assert len(per_class_metrics("test", per_class)) == n_keys


def test_tables_are_csv_with_one_line_a_block_and_a_class(recorded_run: "RecordedRun") -> None:
    rows = [BlockRow("00-Conv", "backbone", "3x32x32", "8x16x16", 216, 0.001, 0.5)]

    results.log_tables(recorded_run, rows, {"val": measurement("val", 0.5), "test": measurement("test", 0.25)})

    blocks = pd.read_csv(io.StringIO(recorded_run.texts["blocks.csv"]))
    assert blocks.to_dict("records") == [
        {"block": "00-Conv", "part": "backbone", "input_shape": "3x32x32", "output_shape": "8x16x16",
         "parameters": 216, "gflops": 0.001, "ms": 0.5}
    ]  # fmt: skip
    classes = pd.read_csv(io.StringIO(recorded_run.texts["per_class.csv"]))
    assert classes[["split", "class", "AP50-95"]].values.tolist() == [["val", "a/b", 0.5], ["test", "a/b", 0.25]]


def test_a_classifier_has_no_table_of_classes(recorded_run: "RecordedRun") -> None:
    results.log_tables(recorded_run, [], {"val": measurement("val", 0.5, with_boxes=False)})

    assert set(recorded_run.texts) == {"blocks.csv"}


def test_only_files_that_exist_are_logged(recorded_run: "RecordedRun", tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for name in ("args.yaml", "b.png", "a.jpg", "weights/best.pt", "weights/last.pt", "labels.cache"):
        (tmp_path / name).write_text("")

    results.log_files(recorded_run, tmp_path)

    assert recorded_run.files == [
        ("args.yaml", ""),
        ("b.png", "plots"),
        ("a.jpg", "plots"),
        ("best.pt", "weights"),
    ]


def test_a_dataset_is_told_by_digest_and_by_what_every_split_holds(
    recorded_run: "RecordedRun", small_data: Path
) -> None:
    dataset = load_dataset(small_data)
    log_dataset(recorded_run, dataset, context="training")  # type: ignore[arg-type]

    (logged,) = recorded_run.datasets
    assert (logged["digest"], logged["source"]) == (dataset.fingerprint, str(small_data))
    assert logged["profile"] == {
        "train": {"images": 8, "backgrounds": 0, "objects": 16},
        "val": {"images": 4, "backgrounds": 0, "objects": 8},
        "test": {"images": 4, "backgrounds": 0, "objects": 8},
    }
