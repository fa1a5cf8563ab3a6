"""What killed runs left beside a new one: delivered and closed by it, and nothing else is touched."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.tracking.delivery import left_over as module
from mlflow_yolo.tracking.delivery.interruption import this_host
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.left_over import find_left_over
from mlflow_yolo.tracking.delivery.ownership import claim
from mlflow_yolo.tracking.delivery.replay import is_closed, replay
from mlflow_yolo.tracking.run import TrackedRun

Open = Callable[..., TrackedRun]


def leave(directory: Path, uri: str, *, uid: str, close: bool = False, **opening: Any) -> Path:
    """Write what a killed process leaves behind (with `close`: one that ended while no server answered)."""
    path = journal_path(directory)
    path.parent.mkdir(parents=True)
    records = [
        {"type": "open", "t": 1000, "uid": uid, "tracking_uri": uri, "tags": {}, "host": this_host(), **opening},
        {"type": "metrics", "t": 2000, "step": 1, "values": {"a": 0.5}},
    ]
    if close:
        records.append({"type": "close", "t": 3000, "status": "FINISHED", "state": None, "terminate": True})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recovering() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "mlflow-yolo-recovery"]


def by_uid(client: MlflowClient) -> dict[str, Run]:
    return {run.data.tags[keys.TAG_UID]: run for run in client.search_runs(["0"])}


def test_the_next_run_closes_a_killed_one_and_delivers_what_it_left(
    open_tracked: Open, store: str, client: MlflowClient, tmp_path: Path
) -> None:
    killed = leave(tmp_path / "train", store, uid="killed")
    silent = leave(tmp_path / "train2", store, uid="silent", close=True)
    run = open_tracked("train3")
    wait_until(lambda: not recovering())
    run.close()
    runs = by_uid(client)
    assert (runs["killed"].info.status, runs["killed"].info.end_time) == ("KILLED", 2000)
    assert runs["killed"].data.tags[keys.TAG_STATE] == "interrupted"
    assert runs["silent"].info.status == "FINISHED"
    for uid in ("killed", "silent"):
        (metric,) = client.get_metric_history(runs[uid].info.run_id, "a")
        assert (metric.timestamp, metric.step, metric.value) == (2000, 1, 0.5)
    assert is_closed(killed)
    assert is_closed(silent)
    assert find_left_over(tmp_path / "train4") == []


def test_no_thread_is_started_where_nothing_was_left(open_tracked: Open, tmp_path: Path) -> None:
    open_tracked("train").close()
    wait_until(lambda: find_left_over(tmp_path / "x") == [])
    open_tracked("train2")
    assert recovering() == []


def test_living_foreign_and_study_runs_are_not_closed(
    open_tracked: Open, store: str, client: MlflowClient, tmp_path: Path
) -> None:
    living = leave(tmp_path / "living", store, uid="living")
    foreign = leave(tmp_path / "foreign", store, uid="foreign", host="another-machine")
    study = leave(tmp_path / "study", store, uid="study", tags={keys.TAG_STUDY: "depth"})
    lock = claim(living)
    assert lock is not None
    run = open_tracked("train")
    wait_until(lambda: not recovering())
    run.close()
    lock.release()
    assert not any(is_closed(journal) for journal in (living, foreign, study))
    runs = by_uid(client)
    assert set(runs) == {"study", run.uid}
    assert runs["study"].info.status == "RUNNING"  # its study knows whether it had a result
    assert runs["study"].data.metrics == {"a": 0.5}


def test_a_worker_of_a_study_cares_for_nobody(open_tracked: Open, store: str, tmp_path: Path) -> None:
    journal = leave(tmp_path / "attempt-1", store, uid="u1")
    open_tracked("attempt-2", parent_uid="0" * 32)
    assert recovering() == []
    open_tracked("attempt-3", recover=False)
    assert recovering() == []
    assert not is_closed(journal)


def test_a_killed_run_in_the_same_directory_is_recovered_too(
    open_tracked: Open, store: str, client: MlflowClient, tmp_path: Path
) -> None:
    leave(tmp_path / "train", store, uid="killed")
    run = open_tracked("train")
    wait_until(lambda: not recovering())
    run.close()
    assert by_uid(client)["killed"].info.status == "KILLED"
    assert by_uid(client)[run.uid].info.status == "FINISHED"


def test_a_dead_server_is_asked_once_and_the_end_does_not_wait(tmp_path: Path, store: str) -> None:
    from mlflow_yolo.tracking.run import open_run

    for name in ("a", "b", "c"):
        leave(tmp_path / name, "http://h:1", uid=name)
    asked: list[str] = []

    def probe(uri: str) -> bool:
        asked.append(uri)
        return "h:1" not in uri

    run = open_run(tmp_path / "run", tracking_uri=store, probe=probe)
    wait_until(lambda: not recovering())
    assert run.close().n_pending == 0
    assert asked.count("http://h:1") == 1
    assert all(is_closed(journal_path(tmp_path / name)) for name in ("a", "b", "c"))  # sent when the server is back


def test_recovery_ends_with_the_run(
    tmp_path: Path, store: str, client: MlflowClient, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_yolo.tracking.run import open_run

    monkeypatch.setattr(module, "_END_S", 0.05)
    leave(tmp_path / "a", store, uid="a")
    leave(tmp_path / "b", store, uid="b")
    begun: list[str] = []
    asked, back = threading.Event(), threading.Event()

    def hang(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "create_run" and kwargs["tags"][keys.TAG_UID] in ("a", "b"):
            begun.append(kwargs["tags"][keys.TAG_UID])
            asked.set()
            back.wait(20)

    run = open_run(tmp_path / "run", tracking_uri=store, client_factory=lambda uri: broken(client, hang))
    assert asked.wait(20)
    assert run.close().n_pending == 0
    back.set()
    wait_until(lambda: not recovering())
    assert len(begun) == 1
    assert set(by_uid(client)) == {*begun, run.uid}
    assert replay(tmp_path).n_pending == 0
    assert set(by_uid(client)) == {"a", "b", run.uid}


def test_only_the_newest_neighbours_are_looked_at(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIRECTORIES", 2)
    for age, name in enumerate(["new", "old", "older"]):
        leave(tmp_path / name, store, uid=name)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert [journal.parents[1].name for journal in find_left_over(tmp_path / "run")] == ["new", "old"]


def test_a_missing_neighbourhood_is_no_error(tmp_path: Path) -> None:
    assert find_left_over(tmp_path / "nowhere" / "run") == []


def test_an_adopted_run_is_closed_only_where_its_process_had_opened_it(
    store: str, client: MlflowClient, tmp_path: Path
) -> None:
    handed_over, own = (client.create_run("0").info.run_id for _ in range(2))
    leave(tmp_path / "a", store, uid="a", run_id=handed_over, ends_with_process=False)
    leave(tmp_path / "b", store, uid="b", run_id=own, ends_with_process=True)
    assert replay(tmp_path).n_pending == 0
    assert client.get_run(handed_over).info.status == "RUNNING"
    assert client.get_run(own).info.status == "KILLED"


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_run_knows_whether_it_can_outlive_its_process(
    open_tracked: Open, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, handed_over: bool
) -> None:
    import mlflow

    with mlflow.start_run() as active:
        if handed_over:
            monkeypatch.setenv("MLFLOW_RUN_ID", active.info.run_id)
        open_tracked(run_id=active.info.run_id).close()
    first = json.loads(journal_path(tmp_path / "run").read_text().splitlines()[0])
    assert first["ends_with_process"] is not handed_over
