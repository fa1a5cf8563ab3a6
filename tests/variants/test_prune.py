import json
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from ultralytics import YOLO

from mlflow_yolo import checkpoints, keys
from tests.variants.conftest import QUICK, Run


def n_parameters(checkpoint: Path) -> int:
    return sum(parameter.numel() for parameter in YOLO(str(checkpoint), verbose=False).model.parameters())


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
