"""The process of the freeze advisor: what it writes, and what it says where it cannot."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_yolo.training.freeze_advice import FreezeAdvice
from mlflow_yolo.training.plan import Plan

pytestmark = pytest.mark.slow


def ask(folder: Path, plan: Plan, *, source: str | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code of the worker and what it said."""
    (folder / "advice").mkdir()
    job = {"plan": plan.to_json(), "source": source, "output": str(folder / "advice.json")}
    (folder / "advice" / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "mlflow_yolo.training.advice_worker", str(folder / "advice" / "job.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [json.loads(line) for line in process.stdout.read().splitlines()]
        return process.wait(), said


def test_it_writes_the_advice_and_says_how_far_it_is(start: Path, small_plan: Plan, tmp_path: Path) -> None:
    code, said = ask(tmp_path, replace(small_plan, model=str(start)))

    assert code == 0
    advice = FreezeAdvice.from_json(json.loads((tmp_path / "advice.json").read_text()))
    assert (advice.n_batches, advice.n_images, len(advice.blocks)) == (8, 8, 24)
    assert said == [{"done": done, "total": 16} for done in range(1, 17)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["advice", "advice.json"]


def test_what_cannot_be_read_is_said_in_one_line(start: Path, small_plan: Plan, tmp_path: Path) -> None:
    code, said = ask(tmp_path, replace(small_plan, model=str(start)), source="nowhere.yaml")

    assert code == 1
    assert [list(line) for line in said] == [["error"]]
    assert "nowhere.yaml" in said[0]["error"]
    assert not (tmp_path / "advice.json").exists()
    assert "Traceback" in (tmp_path / "advice" / "console.log").read_text()
