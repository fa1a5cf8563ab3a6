"""The benchmark of variants runs on the embedded data, shows every variant, and judges nothing there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import variants


@pytest.mark.slow
def test_quick_run_shows_every_variant_and_judges_nothing(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.variants", "--quick"], cwd=repository, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["name"] == "variants"
    assert outcome["ok"] is None
    assert outcome["targets"] == []
    assert [row["variant"] for row in outcome["figures"]["variants"]] == ["digits.pt", "fp32-onnx", "int8-onnx"]
    assert all(row["latency_p50_ms"] > 0 for row in outcome["figures"]["variants"])


def test_data_of_ones_own_is_named_together_with_a_checkpoint() -> None:
    given = variants._arguments(["--data", "cells.yaml", "--model", "best.pt", "--ratio", "0.3"])

    assert (given.data, given.model, given.ratio, given.epochs) == ("cells.yaml", "best.pt", 0.3, 10)
