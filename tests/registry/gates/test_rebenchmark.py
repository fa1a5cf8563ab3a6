from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.gates.rebenchmark import rebenchmark
from mlflow_yolo.registry.record import PARENT_PREDICTIONS, PREDICTIONS, read_record, write_record
from mlflow_yolo.runtime.hardware import read_hardware
from tests.registry.gates.made import a_version, images, measure

N_IMAGES = 3
SMALL = {"runs": 2, "rounds": 2}


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Return the data.yaml of three pictures a split, each with one object that no model finds."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for index in range(N_IMAGES):
            pixels = np.full((32, 64, 3), 40 * index + (split == "val"), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "images" / split / f"{index}.png")
            (tmp_path / "data" / "labels" / split / f"{index}.txt").write_text("0 0.9 0.9 0.05 0.05\n")
    file = tmp_path / "data" / "data.yaml"
    file.write_text(f"path: {file.parent}\ntrain: images/train\nval: images/val\nnames: [bright, dark]\n")
    return str(file)


def test_a_split_that_is_not_there_is_refused(version: Fetched, data: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^split=test does not exist in [^\n]*train, val"):
        rebenchmark(version, None, None, data=data, split="test", directory=tmp_path / "out")


@pytest.mark.slow
def test_candidate_parent_and_champion_are_measured_here_side_by_side(
    version: Fetched, data: str, tmp_path: Path
) -> None:
    stored = measure(version, images(4), images(4), parity={"score_max": 0.0, "box_max_px": 0.0, "n_images": 4})
    record = read_record(stored.benchmark)
    tags = {"quant.method": "minmax", "acc.change_points": "old", "bench.id": "old"}
    write_record(stored.benchmark, replace(record, run_id="r1", tags=tags))
    parent = a_version(tmp_path / "1", version="1", kind="fp32-onnx")
    damaged = a_version(tmp_path / "3", version="3")
    (damaged.folder / "model.onnx").write_bytes(b"no model")
    found = rebenchmark(stored, parent, damaged, data=data, split="auto", directory=tmp_path / "out", **SMALL)
    new = found.candidate.record
    assert new.parent is not None
    assert new.variant.cost.benchmark == new.parent.cost.benchmark != "b1"
    assert len(new.variant.cost.rounds) == len(new.parent.cost.rounds) == 2
    assert new.variant.cost.hardware.fingerprint == read_hardware(1).fingerprint
    assert (new.variant.kind, new.parent.kind) == ("int8-onnx", "fp32-onnx")
    assert (new.variant.sha256, new.parent.sha256) == (version.sha256, parent.sha256)
    assert new.agreement == 1.0  # two copies of one graph
    assert (new.parity, new.run_id) == (record.parity, "r1")
    assert new.tags["quant.method"] == "minmax"
    assert "acc.change_points" not in new.tags
    assert new.tags["bench.id"] == new.variant.cost.benchmark
    assert found.candidate.accuracy.n_images == N_IMAGES
    assert found.candidate.accuracy.headline == ("mAP50-95", 0.0)
    failed = {one.gate: one.why for one in judge(found, Limits()) if not one.passed}
    # Two copies of a file are never one faster than the other at .95 after two rounds; the champion does not open.
    assert set(failed) == {"champion_drop", "speedup"}
    assert "version 3 was not scored" in failed["champion_drop"]


@pytest.mark.slow
def test_what_was_measured_is_kept_and_a_parent_that_is_not_registered_is_taken_over(data: str, tmp_path: Path) -> None:
    version = a_version(tmp_path / "7", kind="fp32-onnx")
    first = rebenchmark(version, None, version, data=data, split="val", directory=tmp_path / "out", **SMALL)
    assert first.candidate.record.parent is None
    # As `compress` would have stored it on these very data, the checkpoint as parent.
    version.benchmark.mkdir()
    predictions = (first.candidate.benchmark / PREDICTIONS).read_bytes()
    for file in (PREDICTIONS, PARENT_PREDICTIONS):
        (version.benchmark / file).write_bytes(predictions)
    of_checkpoint = replace(first.candidate.record.variant, name="best.pt", kind="pt")
    write_record(version.benchmark, replace(first.candidate.record, parent=of_checkpoint, agreement=1.0))
    again = rebenchmark(version, None, version, data=data, split="val", directory=tmp_path / "out", **SMALL)
    assert again.candidate.record.variant.cost == first.candidate.record.variant.cost  # not timed a second time
    assert again.candidate.record.parent is not None
    assert again.candidate.record.parent.kind == "pt"
    assert again.candidate.parent_accuracy.headline == first.candidate.accuracy.headline
    elsewhere = rebenchmark(version, None, None, data=data, split="train", directory=tmp_path / "out", **SMALL)
    assert elsewhere.candidate.record.parent is None
