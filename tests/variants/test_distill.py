from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_yolo import checkpoints
from tests.variants.conftest import QUICK, Run


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_of_the_same_file_name(
    run: Run, few: Path, client: MlflowClient, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher" / "weights" / "digits.pt"
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes(checkpoints.path().read_bytes())
    words = ["--teacher", str(teacher), "--losses", "response=1", "--control", "false", "--epochs", "1"]
    code, shown, error = run("distill", "--data", str(few), *words, "--output", str(tmp_path / "out"), *QUICK)

    assert (code, error) == (0, "")
    assert f"result: {tmp_path / 'out' / 'distilled.pt'}" in shown
    table = pd.read_csv(tmp_path / "out" / "benchmark" / "table.csv").set_index("variant")
    assert list(table.index) == ["checkpoints-digits.pt", "teacher-digits.pt", "distilled.pt"]
    columns = pd.read_csv(next((tmp_path / "out").rglob("results.csv"))).columns.str.strip()
    assert "train/kd_response" in columns
    runs = {found.info.run_name: found for found in client.search_runs(["0"])}
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    assert runs["out"].data.params["loss/response"] == "1.0"
    assert runs["distilled.pt"].data.tags["kd.teacher"] == "digits.pt"
    assert runs["distillation"].data.params["distillation/response"] == "1.0"
