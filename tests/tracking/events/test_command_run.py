from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_yolo import __version__, keys
from mlflow_yolo.tracking.delivery.replay import replay
from mlflow_yolo.tracking.events.command_run import child_run, command_run
from mlflow_yolo.tracking.stores.target import Target, resolve_target


@pytest.fixture
def target(store: str) -> Target:
    """Return the test's own store."""
    return resolve_target(tracking_uri=store)


def test_a_command_that_comes_to_its_end_is_finished(target: Target, client: MlflowClient, tmp_path: Path) -> None:
    with command_run(target, tmp_path / "export-1") as run:
        run.log_metrics({"value": 1.0})
    (found,) = client.search_runs(["0"])
    assert (found.info.run_name, found.info.status) == ("export-1", "FINISHED")
    assert found.data.metrics == {"value": 1.0}
    assert found.data.tags[keys.TAG_VERSION] == __version__


@pytest.mark.parametrize(
    ("error", "status", "state"), [(RuntimeError, "FAILED", None), (KeyboardInterrupt, "KILLED", "interrupted")]
)
def test_what_stops_a_command_is_the_status_of_its_run_and_of_the_child_it_was_in(
    target: Target,
    client: MlflowClient,
    tmp_path: Path,
    error: type[BaseException],
    status: str,
    state: str | None,
) -> None:
    with (
        pytest.raises(error),
        command_run(target, tmp_path / "out") as parent,
        child_run(parent, target, tmp_path / "out" / "one", name="one"),
    ):
        raise error
    runs = {run.info.run_name: run for run in client.search_runs(["0"])}
    assert sorted(runs) == ["one", "out"]
    for run in runs.values():
        assert run.info.status == status
        assert run.data.tags.get(keys.TAG_STATE) == state


def test_a_child_lies_below_its_parent_and_is_continued_by_its_uid(
    target: Target, client: MlflowClient, tmp_path: Path
) -> None:
    with command_run(target, tmp_path / "out") as parent:
        uid = None
        for value in (1.0, 2.0):
            with child_run(parent, target, tmp_path / "out" / "one", name="one", uid=uid) as child:
                uid = child.uid
                child.log_metrics({"value": value})
    runs = {run.info.run_name: run for run in client.search_runs(["0"])}
    assert sorted(runs) == ["one", "out"]
    assert runs["one"].data.tags[keys.TAG_PARENT] == runs["out"].info.run_id
    assert runs["one"].data.metrics == {"value": 2.0}


def test_the_name_that_was_asked_for_is_the_runs_name(store: str, client: MlflowClient, tmp_path: Path) -> None:
    with command_run(resolve_target(tracking_uri=store, run_name="mine"), tmp_path / "out"):
        pass
    (found,) = client.search_runs(["0"])
    assert found.info.run_name == "mine"


def test_a_run_that_mlflow_run_opened_is_left_for_it_to_close(
    target: Target, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = client.create_run("0", run_name="theirs").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with command_run(resolve_target(tracking_uri=target.tracking_uri), tmp_path / "out") as run:
        run.log_metrics({"value": 1.0})
    found = client.get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("theirs", "RUNNING")
    assert found.data.metrics == {"value": 1.0}


def test_a_store_that_does_not_answer_is_said_and_the_run_waits_in_its_journal(
    store: str, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = resolve_target(tracking_uri="http://127.0.0.1:9")
    with command_run(dark, tmp_path / "out") as run:
        run.log_metrics({"value": 1.0})
    assert "http://127.0.0.1:9" in capsys.readouterr().err
    assert replay(tmp_path / "out", tracking_uri=store).n_pending == 0
    (found,) = client.search_runs(["0"])
    assert found.data.metrics == {"value": 1.0}
