import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.record import read_record
from mlflow_yolo.variant import read_variant
from mlflow_yolo.variants import compress
from mlflow_yolo.variants.compress import read_kinds, read_sizes
from tests.variants.conftest import QUICK, Run
from tests.variants.made import a_subject

CHAIN = [
    "--kinds",
    "fp32-onnx,int8-onnx",
    "--ratio",
    "0.3",
    "--epochs",
    "1",
    "--method",
    "minmax",
    "--calibration",
    "4",
]


def test_float32_is_always_among_the_kinds_and_first() -> None:
    assert read_kinds("int8-onnx,fp16-onnx,int8-onnx") == ("fp32-onnx", "int8-onnx", "fp16-onnx")


def test_without_a_word_all_kinds_that_can_be_made_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "missing_extra", lambda kind: "openvino" if "openvino" in kind else "")
    assert read_kinds(None) == ("fp32-onnx", "fp16-onnx", "int8-onnx", "dynamic-int8-onnx")


def test_sizes_are_whole_numbers_once() -> None:
    assert read_sizes(None) == ()
    assert read_sizes("256, 224,,256") == (256, 224)
    for word in ("big", "-64", "1.5"):
        with pytest.raises(ArgumentError, match=f"sizes={word}"):
            read_sizes(f"256,{word}")


def test_other_checkpoints_are_told_apart() -> None:
    others = [a_subject(Path(path)) for path in ("/a/best.pt", "/b/best.pt", "/b/large.pt", "/c/pruned.pt")]
    found = [compress._stem(one, others) for one in others]
    assert found == ["best-ababab", "best-ababab", "large", "pruned-ababab"]


@pytest.mark.slow
def test_a_killed_chain_goes_on_where_it_was_in_the_same_run(
    run: Run, few: Path, client: MlflowClient, store: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["compress", "--data", str(few), *CHAIN, *QUICK, "--output", str(out), "--tracking-uri", store]
    _kill_when((out / "fine-tuning" / "mlflow_yolo" / "journal.sent").exists, words)
    kept = [out / "variants" / kind / "model.onnx" for kind in ("fp32-onnx", "int8-onnx")] + [out / "untrained.pt"]
    before = [file.stat().st_mtime_ns for file in kept]
    (parent,) = client.search_runs(["0"], "attributes.run_name = 'out'")
    assert not (out / "benchmark").exists()

    code, shown, error = run(*words)

    assert (code, error) == (0, "")
    assert [file.stat().st_mtime_ns for file in kept] == before
    names = ["digits.pt", "fp32-onnx", "int8-onnx", "pruned.pt", "pruned-fp32-onnx", "pruned-int8-onnx"]
    table = pd.read_csv(out / "benchmark" / "table.csv").set_index("variant")
    assert list(table.index) == names
    assert table["error"].isna().all()
    assert table.loc["pruned-fp32-onnx", "size_mb"] < table.loc["fp32-onnx", "size_mb"]
    assert "Pruned " in shown
    assert f"variants: {out / 'variants'}" in shown
    assert sorted(os.listdir(out / "variants")) == sorted(names[1:3] + names[4:])
    sources = read_variant(out / "variants" / "pruned-int8-onnx").sources
    assert sources["pruning"]["prune.ratio"] == "0.3"
    assert sources["calibration"]["split"] == "train"

    runs = client.search_runs(["0"])
    statuses = sorted((found.info.run_name, found.info.status) for found in runs)
    assert statuses == sorted(
        [*((name, "FINISHED") for name in ["out", "fine-tuning", *names]), ("fine-tuning", "KILLED")]
    )
    by_name = {found.info.run_name: found for found in runs}
    assert by_name["out"].info.run_id == parent.info.run_id
    assert {found.data.tags.get(keys.TAG_PARENT) for found in runs} == {None, parent.info.run_id}
    assert by_name["pruned-int8-onnx"].data.tags["prune.ratio"] == "0.3"
    assert "prune.ratio" not in by_name["int8-onnx"].data.tags
    records = {name: read_record(out / "benchmark" / "records" / name) for name in names if not name.endswith(".pt")}
    parents = {name: record.parent.name for name, record in records.items() if record.parent}
    assert parents == {
        "fp32-onnx": "digits.pt",
        "int8-onnx": "fp32-onnx",
        "pruned-fp32-onnx": "fp32-onnx",
        "pruned-int8-onnx": "pruned-fp32-onnx",
    }
    assert [name for name, record in records.items() if record.parity] == ["fp32-onnx", "pruned-fp32-onnx"]
    tags = {name: record.tags for name, record in records.items()}
    assert int(tags["pruned-int8-onnx"]["model.params"]) < int(tags["int8-onnx"]["model.params"])
    assert tags["pruned-int8-onnx"]["model.params"] == tags["pruned-int8-onnx"]["prune.params"]
    assert tags["int8-onnx"]["quant.calib_n"] == "4"
    assert {name: record.run_id for name, record in records.items()} == {
        name: by_name[name].info.run_id for name in records
    }


def _kill_when(reached: object, words: list[str]) -> None:
    """Run a command in a process of its own until `reached()`, then kill it."""
    assert callable(reached)
    process = subprocess.Popen([sys.executable, "-m", "mlflow_yolo", *words], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
