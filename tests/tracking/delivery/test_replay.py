"""Replaying left-over journals: everything once, parents first, and nothing that is somebody else's."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

import mlflow_yolo
from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.statistics.storage import read_histograms
from mlflow_yolo.tracking.delivery.journal import Cursor, journal_path
from mlflow_yolo.tracking.delivery.replay import close_interrupted, find_journals, is_closed, pending_journals, replay
from mlflow_yolo.tracking.run import TrackedRun

Open = Callable[..., TrackedRun]


def write_journal(directory: Path, uri: str, *, uid: str, close: bool = True, **opening: Any) -> Path:
    """Write what a process that never reached a server leaves behind."""
    path = journal_path(directory)
    path.parent.mkdir(parents=True)
    records = [
        {"type": "open", "t": 1000, "uid": uid, "tracking_uri": uri, "tags": {}, **opening},
        {"type": "metrics", "t": 2000, "step": 1, "values": {"a": 0.5}},
        {"type": "params", "values": {"seed": "1"}},
    ]
    if close:
        records.append({"type": "close", "t": 3000, "status": "FINISHED", "state": None, "terminate": True})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_replay_sends_everything_with_its_own_times(store: str, client: MlflowClient, tmp_path: Path) -> None:
    write_journal(tmp_path / "run", store, uid="u1")
    done = replay(tmp_path)
    assert (done.n_sent_runs, done.n_pending, done.n_interrupted) == (1, 0, 0)
    (run,) = client.search_runs(["0"])
    assert (run.info.start_time, run.info.end_time, run.info.status) == (1000, 3000, "FINISHED")
    (metric,) = client.get_metric_history(run.info.run_id, "a")
    assert (metric.timestamp, metric.step, metric.value) == (2000, 1, 0.5)


@pytest.mark.parametrize("forget_cursor", [False, True])
def test_replaying_twice_changes_nothing(
    store: str, client: MlflowClient, tmp_path: Path, *, forget_cursor: bool
) -> None:
    journal = write_journal(tmp_path / "run", store, uid="u1")
    replay(tmp_path)
    if forget_cursor:
        Cursor().save(journal)
    replay(tmp_path)
    (run,) = client.search_runs(["0"])
    assert len(client.get_metric_history(run.info.run_id, "a")) == 1
    assert (run.info.status, run.info.end_time) == ("FINISHED", 3000)


def test_parents_are_sent_before_their_children(store: str, client: MlflowClient, tmp_path: Path) -> None:
    write_journal(tmp_path / "a-child", store, uid="grandchild", parent_uid="child")
    write_journal(tmp_path / "b-child", store, uid="child", parent_uid="parent")
    write_journal(tmp_path / "c-parent", store, uid="parent")
    assert [journal.parents[1].name for journal in find_journals(tmp_path)] == ["c-parent", "b-child", "a-child"]
    assert replay(tmp_path).n_pending == 0
    runs = {run.data.tags[keys.TAG_UID]: run for run in client.search_runs(["0"])}
    assert runs["child"].data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
    assert runs["grandchild"].data.tags["mlflow.parentRunId"] == runs["child"].info.run_id


def test_journals_that_name_each_other_as_parents_do_not_hang(store: str, tmp_path: Path) -> None:
    write_journal(tmp_path / "a", store, uid="a", parent_uid="b")
    write_journal(tmp_path / "b", store, uid="b", parent_uid="a")
    done = replay(tmp_path)
    assert done.n_pending == 8
    assert "parent run" in done.errors[0]


def test_a_dead_server_is_asked_once_for_all_journals(tmp_path: Path) -> None:
    asked: list[str] = []
    for name in ("a", "b", "c"):
        write_journal(tmp_path / name, "http://h:1", uid=name)
    done = replay(tmp_path, probe=lambda uri: bool(asked.append(uri)))
    assert asked == ["http://h:1"]
    assert (done.n_sent_runs, done.n_pending) == (0, 12)
    assert done.errors == ("http://h:1 does not answer; start it and replay again",)
    assert "12 records pending" in str(done)


def test_another_address_may_be_given(store: str, client: MlflowClient, tmp_path: Path, dead_uri: str) -> None:
    write_journal(tmp_path / "run", dead_uri, uid="u1")
    assert replay(tmp_path, tracking_uri=store).n_pending == 0
    assert len(client.search_runs(["0"])) == 1


def test_a_dead_process_leaves_a_run_that_is_closed_at_its_last_record(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    journal = write_journal(tmp_path / "run", store, uid="u1", close=False)
    assert pending_journals(tmp_path) == [journal]
    delivery = close_interrupted(tmp_path / "run")
    assert delivery is not None
    assert delivery.n_pending == 0
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.info.end_time) == ("KILLED", 2000)
    assert run.data.tags[keys.TAG_STATE] == "interrupted"
    assert is_closed(journal)
    assert pending_journals(tmp_path) == []


def test_statistics_that_a_killed_process_had_spooled_are_put_together_and_sent(
    store: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_yolo.statistics import storage

    def assemble(directory: Path) -> tuple[Path, ...]:
        (directory / "layers.parquet").write_text((directory / "statistics.spool").read_text())
        return (directory / "layers.parquet",)

    monkeypatch.setattr(storage, "assemble", assemble)
    write_journal(tmp_path / "run", store, uid="u1", close=False)
    (tmp_path / "run" / "statistics").mkdir()
    (tmp_path / "run" / "statistics" / "statistics.spool").write_text("rows")
    assert replay(tmp_path).n_pending == 0
    (run,) = client.search_runs(["0"])
    assert Path(client.download_artifacts(run.info.run_id, "statistics/layers.parquet")).read_text() == "rows"


def test_the_statistics_of_a_process_killed_with_9_are_in_the_store_after_a_replay(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    code = f"""
        import os, signal
        from pathlib import Path

        import numpy as np

        from mlflow_yolo.statistics.epoch import EpochStatistics, Grid
        from mlflow_yolo.statistics.histogram import Histograms
        from mlflow_yolo.statistics.storage import StatisticsWriter
        from mlflow_yolo.tracking.run import open_run

        run = open_run(Path({str(tmp_path / "run")!r}), tracking_uri={store!r})
        writer = StatisticsWriter(run.directory / "statistics")
        for epoch in (1, 2):
            values = {{"l2": np.array([[epoch / 4], [epoch / 2]])}}
            whole = np.ones((2, 1), bool), np.ones(2, bool)
            grid = Grid("gradients", np.arange(2), np.array([0]), values, *whole)
            histograms = {{"weights": Histograms(np.array([0]), np.full((1, 2, 64), epoch), np.array([0]))}}
            part = EpochStatistics(epoch, {{0: "00-Conv"}}, (grid,), histograms, n_steps=2)
            writer.append(part, attempt=0)
            writer.add_histograms(part)
            run.log_metrics({{"a": epoch}}, step=epoch)
        run.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    assert done.returncode == -signal.SIGKILL
    done_now = replay(tmp_path)
    assert (done_now.n_pending, done_now.n_interrupted, done_now.rejected) == (0, 1, ())

    (run,) = client.search_runs(["0"])
    frame = mlflow_yolo.load_statistics(run.info.run_id, tracking_uri=store)
    rows = frame[frame["kind"] == "gradients"][["epoch", "step", "name", "statistic", "value"]]
    assert rows.to_records(index=False).tolist() == [
        (1, 0, "00-Conv", "l2", 0.25),
        (1, 1, "00-Conv", "l2", 0.5),
        (2, 0, "00-Conv", "l2", 0.5),
        (2, 1, "00-Conv", "l2", 1.0),
    ]
    arrays = read_histograms(Path(client.download_artifacts(run.info.run_id, "statistics/histograms.npz")))
    assert [int(counts.sum()) for counts in arrays["weights"]] == [128, 256]
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "a")] == [1, 2]
    assert run.info.status == "KILLED"


def test_statistics_that_cannot_be_put_together_cost_only_themselves(
    store: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_yolo.statistics import storage

    def fail(directory: Path) -> tuple[Path, ...]:
        raise OSError("no space")

    monkeypatch.setattr(storage, "assemble", fail)
    write_journal(tmp_path / "run", store, uid="u1", close=False)
    (tmp_path / "run" / "statistics").mkdir()
    done = replay(tmp_path)
    assert done.n_pending == 0
    assert "no space" in done.rejected[0]
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.metrics) == ("KILLED", {"a": 0.5})


def test_statistics_of_a_killed_run_survive_a_new_run_in_its_directory(
    open_tracked: Open, store: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_yolo.statistics import storage

    def assemble(directory: Path) -> tuple[Path, ...]:
        return (directory / "layers.parquet",)

    monkeypatch.setattr(storage, "assemble", assemble)
    write_journal(tmp_path / "run", store, uid="killed", close=False)
    table = tmp_path / "run" / "statistics" / "layers.parquet"
    table.parent.mkdir()
    table.write_text("old")
    new = open_tracked()
    table.write_text("new")
    new.close()
    assert replay(tmp_path).n_pending == 0
    runs = {run.data.tags[keys.TAG_UID]: run for run in client.search_runs(["0"])}
    assert runs["killed"].info.status == "KILLED"
    found = client.download_artifacts(runs["killed"].info.run_id, "statistics/layers.parquet")
    assert Path(found).read_text() == "old"


def test_a_clock_that_was_set_back_does_not_end_a_run_before_its_start(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    write_journal(tmp_path / "run", store, uid="u1", close=False, t=2500)
    replay(tmp_path)
    (run,) = client.search_runs(["0"])
    assert (run.info.start_time, run.info.end_time) == (2500, 2500)


def test_a_run_that_had_a_result_may_be_closed_as_finished(store: str, client: MlflowClient, tmp_path: Path) -> None:
    write_journal(tmp_path / "run", store, uid="u1", close=False)
    close_interrupted(tmp_path / "run", status="FINISHED", state=None)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert keys.TAG_STATE not in run.data.tags


def test_a_final_status_at_the_server_is_not_overruled(store: str, client: MlflowClient, tmp_path: Path) -> None:
    journal = write_journal(tmp_path / "run", store, uid="u1", close=False)
    replay(tmp_path, interrupted=False)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "RUNNING"
    client.set_terminated(run.info.run_id, "FAILED")
    assert not is_closed(journal)
    assert replay(tmp_path).n_interrupted == 1
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    assert keys.TAG_STATE not in client.get_run(run.info.run_id).data.tags


def test_a_living_run_is_left_alone(open_tracked: Open, tmp_path: Path) -> None:
    open_tracked().log_metrics({"a": 1})
    assert close_interrupted(tmp_path / "run") is None
    assert pending_journals(tmp_path) == []


def test_a_torn_last_line_costs_only_itself(store: str, client: MlflowClient, tmp_path: Path) -> None:
    journal = write_journal(tmp_path / "run", store, uid="u1", close=False)
    journal.write_text(journal.read_text() + '{"type": "metrics", "t": 2500, "va')
    assert replay(tmp_path).n_pending == 0
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.info.end_time) == ("KILLED", 2000)
    assert run.data.metrics == {"a": 0.5}


def test_a_deleted_experiment_and_a_missing_run_are_named(store: str, client: MlflowClient, tmp_path: Path) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    write_journal(tmp_path / "a", store, uid="a", experiment="gone")
    write_journal(tmp_path / "b", store, uid="b", run_id="0" * 32)
    errors = replay(tmp_path).errors
    assert "experiment 'gone' is deleted" in errors[0]
    assert "0" * 32 in errors[1]


def test_an_experiment_created_by_another_process_meanwhile_is_used(
    store: str, client: MlflowClient, tmp_path: Path, broken: Any
) -> None:
    def overtake(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "create_experiment":
            client.create_experiment(args[0])

    write_journal(tmp_path / "run", store, uid="u1", experiment="new")
    assert replay(tmp_path, client_factory=lambda uri: broken(client, overtake)).n_pending == 0
    experiment = client.get_experiment_by_name("new")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_an_empty_folder_gives_nothing_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert find_journals(tmp_path) == []
    assert replay(tmp_path).n_sent_runs == 0
    with pytest.raises(ArgumentError, match="nowhere"):
        replay(tmp_path / "nowhere")
    assert close_interrupted(tmp_path) is None
