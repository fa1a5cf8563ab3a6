import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from ultralytics import YOLO

from mlflow_yolo import checkpoints, keys
from mlflow_yolo.compression.pruning.record import PruningRecord
from mlflow_yolo.variants.prune import record_sentence
from tests.variants.conftest import QUICK, Run


def n_parameters(checkpoint: Path) -> int:
    return sum(parameter.numel() for parameter in YOLO(str(checkpoint), verbose=False).model.parameters())


def a_record(method: str, **more: Any) -> PruningRecord:
    return PruningRecord(
        method=method,
        ratio=0.3,
        ratio_reached=0.25,
        parameters_before=2_000_000,
        parameters_after=1_500_000,
        macs_before=2_000_000_000,
        macs_after=1_000_000_000,
        size_mb_before=4.0,
        size_mb_after=3.0,
        widths=(),
        imgsz=320,
        **more,
    )


def test_a_sentence_says_what_is_gone() -> None:
    assert record_sentence(a_record("structured")) == (
        "Pruned 25% of all channels: 2,000,000 to 1,500,000 parameters, "
        "2.00 to 1.00 GMACs at 320 px (50%), 4.0 to 3.0 MB."
    )


def test_cleared_weights_are_no_channels_and_make_nothing_faster() -> None:
    sentence = record_sentence(a_record("unstructured"))
    assert sentence.startswith("Pruned 25% of all weights: ")
    assert sentence.endswith("neither faster nor smaller.")


def test_dead_channels_come_with_the_proof_that_scores_hardly_change() -> None:
    sentence = record_sentence(a_record("dead-channels", score_change=0.00123, output_change=0.1, n_images=64))
    assert sentence.endswith(" Its scores change by at most 0.0012 on 64 training images.")


@pytest.mark.slow
def test_a_pruned_model_is_trained_on_and_judged_against_a_control(
    run: Run, few: Path, client: MlflowClient, tmp_path: Path
) -> None:
    words = ["--ratio", "0.3", "--round_to", "4", "--epochs", "1", "--output", str(tmp_path / "out")]
    code, shown, error = run("prune", "--data", str(few), *words, *QUICK)

    assert (code, error) == (0, "")
    out = tmp_path / "out"
    record = json.loads((out / "pruning.json").read_text())
    before, after = n_parameters(checkpoints.path()), n_parameters(out / "pruned.pt")
    assert (record["parameters_before"], record["parameters_after"]) == (before, after)
    assert after == n_parameters(out / "untrained.pt") < 0.8 * before == 0.8 * n_parameters(out / "control.pt")
    assert shown.startswith("Pruned ")
    assert f"result: {out / 'pruned.pt'}" in shown
    table = pd.read_csv(out / "benchmark" / "table.csv").set_index("variant")
    assert list(table.index) == ["digits.pt", "control.pt", "untrained.pt", "pruned.pt"]
    assert table.loc["control.pt", "speedup"] == 1.0  # the reference
    runs = {found.info.run_name: found for found in client.search_runs(["0"])}
    children = {"fine-tuning", "control", *table.index}
    assert set(runs) == {"out", *children}
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    parent = runs["out"]
    assert {runs[name].data.tags[keys.TAG_PARENT] for name in children} == {parent.info.run_id}
    assert parent.data.params["ratio"] == "0.3"
    assert parent.data.metrics["prune/parameters_after"] == after
    assert {one.path for one in client.list_artifacts(parent.info.run_id)} == {"benchmark", "pruned.pt", "pruning"}
    assert runs["pruned.pt"].data.tags["prune.params"] == str(after)
    assert "prune.params" not in runs["control.pt"].data.tags
