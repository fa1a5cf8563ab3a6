"""Trainings under `autolog` killed with -9: the next one delivers their values, and closes their runs."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

import mlflow_yolo
from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery.replay import replay

pytestmark = [pytest.mark.slow, pytest.mark.campaign, pytest.mark.timeout(7200)]

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
SECOND = 1.0


def test_a_killed_training_has_lost_nothing_older_than_a_second(
    store: str, small_data: Path, small_model: Path, tmp_path: Path, campaign_count: int
) -> None:
    dice = random.Random(SEED)
    for number in range(max(1, campaign_count // 4)):
        folder, ledger = tmp_path / f"runs-{number}", tmp_path / f"ledger-{number}"
        killed_at = _train(small_model, small_data, folder, ledger, kill_after_s=dice.uniform(1.2, 6.0))

        done = replay(folder)

        assert (done.n_pending, done.errors, done.n_interrupted) == (0, (), 1)
        _check(store, folder, ledger, killed_at)


def _train(model: Path, data: Path, folder: Path, ledger: Path, *, kill_after_s: float) -> float:
    """Train in a process of its own, kill it some seconds after its first epoch, and return when that was."""
    script = Path(__file__).with_name("training_victim.py")
    command = [sys.executable, str(script), str(model), str(data), str(folder), str(ledger)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with ledger.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not (ledger.exists() and ledger.stat().st_size):
            assert process.poll() is None, ledger.with_suffix(".log").read_text()
            time.sleep(0.02)
        time.sleep(kill_after_s)
        assert process.poll() is None, ledger.with_suffix(".log").read_text()
    finally:
        process.kill()
        killed_at = time.monotonic()
        process.wait()
    print(f"killed {kill_after_s:.2f} s after the first epoch", file=sys.stderr)
    return killed_at


def _check(store: str, folder: Path, ledger: Path, killed_at: float) -> None:
    lines = [json.loads(line) for line in ledger.read_text().split("\n")[:-1]]
    old = {epoch: values for at, epoch, values in lines if at < killed_at - SECOND}
    about = json.loads((folder / "train" / "run.json").read_text())
    client = MlflowClient(tracking_uri=store)
    # Killed before the store had answered, the training never knew the run that the replay made for it.
    [run] = client.search_runs(["0"], filter_string=f"tags.`{keys.TAG_UID}` = '{about['uid']}'")
    run_id = run.info.run_id
    assert about["run_id"] in (None, run_id)
    assert (run.info.status, run.data.tags[keys.TAG_STATE]) == ("KILLED", "interrupted")
    for key in old[1]:
        history = client.get_metric_history(run_id, keys.sanitise(key))
        assert set(Counter(metric.step for metric in history).values()) == {1}
        values = {metric.step: metric.value for metric in history}
        assert {epoch: values.get(epoch) for epoch in old} == {epoch: old[epoch][key] for epoch in old}
    assert "statistics/report.html" in {file.path for file in client.list_artifacts(run_id, "statistics")}
    statistics = mlflow_yolo.load_statistics(run_id, tracking_uri=store)
    assert set(old) <= set(statistics["epoch"])
    columns = ["epoch", "step", "block", "kind", "statistic"]
    assert not statistics.duplicated(columns).any()
