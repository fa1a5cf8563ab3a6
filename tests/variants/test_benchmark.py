import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo.detection.samples import load_samples
from mlflow_yolo.exceptions import CheckpointError
from mlflow_yolo.registry.candidates import find_candidates
from mlflow_yolo.registry.record import read_record
from mlflow_yolo.runtime.parity import MAX_SCORE
from mlflow_yolo.variant import Variant, write_variant
from mlflow_yolo.variants.benchmark import find_variants
from tests.variants.conftest import Exported, Run
from tests.variants.made import a_variant


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Return a folder of two variants, an unfinished one, and other things."""
    for name in ("b", "a", ".c.0123abcd"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "model.onnx").write_bytes(b"x")
        write_variant(tmp_path / "v" / name, a_variant("fp32-onnx"))
    (tmp_path / "v" / "else").mkdir()
    (tmp_path / "v" / "notes.txt").write_text("")
    (tmp_path / "m.pt").write_text("")
    return tmp_path / "v"


def test_a_folder_stands_for_the_finished_variants_in_it(folders: Path) -> None:
    assert find_variants(str(folders)) == [folders / "a", folders / "b"]


def test_a_list_names_variants_their_json_folders_and_checkpoints_in_its_order(folders: Path) -> None:
    text = f"{folders / 'b'}, {folders / 'a' / 'variant.json'},{folders.parent / 'm.pt'},,{folders}"
    expected = [folders / "b", folders / "a", folders.parent / "m.pt", folders / "a", folders / "b"]
    assert find_variants(text) == expected


def test_nothing_named_is_the_checkpoint_alone() -> None:
    assert find_variants("") == []


@pytest.mark.parametrize("name", ["else", "notes.txt", "none", "none.pt", ".c.0123abcd/none"])
def test_a_path_without_a_variant_is_refused(folders: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"variants={folders / name}"):
        find_variants(f"{folders},{folders / name}")


@pytest.mark.slow
def test_variants_are_measured_beside_their_checkpoint_and_a_broken_one_is_a_row(
    run: Run, exported: Exported, few: Path, client: MlflowClient, tmp_path: Path
) -> None:
    for kind in ("fp32-onnx", "fp16-onnx"):
        shutil.copytree(exported.folder / kind, tmp_path / "made" / kind)
    broken = tmp_path / "made" / "broken"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"no model")
    names = tuple(str(digit) for digit in range(10))
    write_variant(broken, Variant("int8-onnx", "model.onnx", "detect", names, (128, 128)))
    words = ["--variants", str(tmp_path / "made"), "--rounds", "2", "--runs", "4", "--output", str(tmp_path / "out")]
    code, shown, error = run("benchmark", "--data", str(few), *words)

    assert (code, error) == (0, "")
    table = pd.read_csv(tmp_path / "out" / "benchmark" / "table.csv").set_index("variant")
    assert list(table.index) == ["digits.pt", "broken", "fp16-onnx", "fp32-onnx"]
    measured = table.drop(index="broken")
    assert (measured[["latency_p50_ms", "test/mAP50-95", "throughput_8", "peak_memory_mb"]] > 0).all(axis=None)
    assert table.loc["fp32-onnx", "speedup"] == 1.0
    assert abs(table.loc["digits.pt", "change"]) < 1e-6
    assert table.loc["digits.pt", "agreement"] == 1.0
    assert "broken could not be measured" in shown
    runs = {found.info.run_name: found for found in client.search_runs(["0"])}
    assert sorted(runs) == ["broken", "digits.pt", "fp16-onnx", "fp32-onnx", "out"]
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    assert "model.onnx" in runs["broken"].data.tags["bench.error"]
    assert runs["fp16-onnx"].data.tags["bench.threads"] == "1"

    records = {name: read_record(tmp_path / "out" / "benchmark" / "records" / name) for name in table.index[1:]}
    exact, half = records["fp32-onnx"], records["fp16-onnx"]
    assert exact.parity is not None
    assert exact.parity["score_max"] < MAX_SCORE
    assert half.parity is None
    assert (exact.parent.name, half.parent.name) == ("digits.pt", "fp32-onnx")
    assert [one.run_id for one in (exact, half)] == [runs[name].info.run_id for name in ("fp32-onnx", "fp16-onnx")]
    assert half.variant.cost.latency_p50_ms == table.loc["fp16-onnx", "latency_p50_ms"]
    folder = tmp_path / "out" / "benchmark" / "records" / "fp16-onnx"
    ours, theirs = (load_samples(folder / file) for file in ("predictions.npz", "parent_predictions.npz"))
    assert [one.image for one in ours] == [one.image for one in theirs]
    assert len(ours) == 4
    candidates, failed = find_candidates([tmp_path / "out"])
    assert [one.name for one in candidates] == ["fp32-onnx", "fp16-onnx"]
    assert [one.name for one in failed] == ["broken"]
