"""Block statistics read back from MLflow, and what is said when they cannot be."""

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from mlflow_yolo.exceptions import ArgumentError, StoreError, WorkError
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.storage import StatisticsWriter
from mlflow_yolo.tracking.blocks.statistics_files import load_statistics

if TYPE_CHECKING:
    from tests.conftest import Trained


def part(epoch: int, *, n_steps: int, sampled: tuple[int, ...] = (0,)) -> EpochStatistics:
    n = len(sampled)
    values = {"gradient_norm": np.arange(n, dtype=float)[:, None]}
    grid = Grid("global", np.array(sampled), np.array([NO_BLOCK]), values, np.ones((n, 1), bool), np.ones(n, bool))
    return EpochStatistics(epoch, {0: "00-Conv"}, (grid,), n_steps=n_steps)


def log_run(uri: str, folder: Path, *parts: EpochStatistics) -> str:
    """Return the id of a run with the files of these parts, without any where there are none."""
    client = MlflowClient(tracking_uri=uri)
    run_id: str = client.create_run("0").info.run_id
    writer = StatisticsWriter(folder)
    for found in parts:
        writer.append(found, attempt=0)
    for path in writer.write() if parts else ():
        client.log_artifact(run_id, str(path), "statistics")
    return run_id


def test_the_table_is_read_back_with_steps_counted_over_the_whole_training(store: str, tmp_path: Path) -> None:
    parts = part(1, n_steps=10, sampled=(0, 9)), part(2, n_steps=7, sampled=(3,)), part(3, n_steps=1)
    run_id = log_run(store, tmp_path / "files", *parts)
    frame = load_statistics(run_id, tracking_uri=store)
    assert list(frame.columns) == ["epoch", "step", "global_step", "block", "name", "kind", "statistic", "value"]
    norms = frame[frame.statistic == "gradient_norm"]
    assert norms[["epoch", "step", "global_step", "value"]].to_numpy().tolist() == [
        [1, 0, 0, 0.0],
        [1, 9, 9, 1.0],
        [2, 3, 13, 0.0],
        [3, 0, 17, 0.0],
    ]


def test_steps_are_not_counted_on_over_an_epoch_that_is_not_there(store: str, tmp_path: Path) -> None:
    run_id = log_run(store, tmp_path / "files", part(1, n_steps=5), part(3, n_steps=5), part(4, n_steps=5))
    frame = load_statistics(run_id, tracking_uri=store)
    counted = frame[frame.statistic == "gradient_norm"].set_index("epoch").global_step
    assert counted[1] == 0
    assert counted.isna().tolist() == [False, True, True]


def test_the_store_is_that_of_mlflow_where_none_is_given_and_its_setting_stays(store: str, tmp_path: Path) -> None:
    run_id = log_run(store, tmp_path / "files", part(1, n_steps=5))
    assert len(load_statistics(run_id)) == 2  # from MLFLOW_TRACKING_URI
    mlflow.set_tracking_uri("sqlite:////nowhere/mlflow.db")
    assert len(load_statistics(run_id, tracking_uri=store)) == 2
    assert mlflow.get_tracking_uri() == "sqlite:////nowhere/mlflow.db"
    assert mlflow.active_run() is None


def test_reading_draws_no_progress_bar_and_leaves_the_environment(
    store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = log_run(store, tmp_path / "files", part(1, n_steps=5))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "true")
    before = dict(os.environ)
    capfd.readouterr()
    assert len(load_statistics(run_id, tracking_uri=store)) == 2
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before


def documented() -> dict[tuple[str, str], str]:
    """Return the units in docs/statistics.md by kind and statistic."""
    page = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+) \| (\w+) \| .+ \| (.+) \| .+ \|$", page, re.MULTILINE)
    return {(kind, statistic): unit.strip() for kind, statistic, unit in rows if kind != "kind"}


def test_the_reference_has_every_statistic_of_a_real_training_with_its_unit_and_no_other(trained: "Trained") -> None:
    frame = load_statistics(trained.run_id, tracking_uri=trained.uri)
    found = {(str(kind), str(statistic)) for kind, statistic in zip(frame["kind"], frame["statistic"], strict=True)}
    assert set(documented()) - found == {("global", "nonfinite_block")}  # every gradient of it was finite
    assert found <= set(documented())
    assert all(documented().values())


def test_a_run_that_the_store_does_not_know_is_named(store: str) -> None:
    with pytest.raises(ArgumentError, match=r"run_id=0123 is no run of sqlite:.*tracking_uri"):
        load_statistics("0123", tracking_uri=store)


def test_a_run_without_statistics_is_said_to_have_none(store: str, tmp_path: Path) -> None:
    run_id = log_run(store, tmp_path)
    with pytest.raises(ArgumentError, match=rf"run {run_id} has no statistics/layers.parquet.*replay"):
        load_statistics(run_id, tracking_uri=store)


def test_a_store_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"elsewhere\.db does not exist"):
        load_statistics("0123", tracking_uri=f"sqlite:///{tmp_path / 'elsewhere.db'}")
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_server_that_does_not_answer_is_said_so_at_once_and_without_its_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(StoreError, match="does not answer") as caught:
        load_statistics("0123", tracking_uri=f"http://me:secret@127.0.0.1:{port}")
    assert "secret" not in str(caught.value)


def test_a_damaged_file_is_said_to_be_unreadable(store: str, tmp_path: Path) -> None:
    run_id = log_run(store, tmp_path / "files", part(1, n_steps=5))
    (tmp_path / "layers.parquet").write_bytes(b"PAR1 but no more")
    MlflowClient(tracking_uri=store).log_artifact(run_id, str(tmp_path / "layers.parquet"), "statistics")
    with pytest.raises(WorkError, match=r"layers\.parquet"):
        load_statistics(run_id, tracking_uri=store)


def test_a_real_training_can_be_read_back_and_shown(trained: "Trained") -> None:
    frame = load_statistics(trained.run_id, tracking_uri=trained.uri)
    norms = frame[frame.statistic == "gradient_norm"]
    assert norms.global_step.tolist() == sorted(norms.global_step.tolist())
    n_steps = dict(frame[frame.statistic == "n_steps"][["epoch", "value"]].to_numpy().tolist())
    assert norms.groupby("epoch").step.max().to_dict() == {epoch: n - 1 for epoch, n in n_steps.items()}
    frozen = frame[frame.statistic == "frozen"]
    assert set(frozen.block) == {0, 1, 2}
    learning: Any = frame[frame.kind.isin(["gradients", "weights"])]
    assert not set(learning.block) & {0, 1, 2}
    assert pd.api.types.is_integer_dtype(frame.global_step)
    page = trained.client.download_artifacts(trained.run_id, "statistics/report.html")
    assert "00-Conv" in Path(page).read_text("utf-8")
