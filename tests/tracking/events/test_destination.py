"""Runs go where MLflow's own calls would go; MLflow's state is only read."""

import threading
from pathlib import Path

import mlflow
import pytest

from mlflow_yolo.tracking.events.destination import Destination, release, resolve_destination, take
from mlflow_yolo.tracking.events.options import Options


def test_without_anything_a_new_run_goes_to_the_default_experiment(store: str) -> None:
    assert resolve_destination(Options()) == Destination(store, "Default", None, None)


def test_an_experiment_and_a_store_set_in_mlflow_win_over_the_environment(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "environment")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere:1")
    mlflow.set_tracking_uri(store)
    experiment = mlflow.set_experiment("mine")

    found = resolve_destination(Options())
    assert (found.tracking_uri, found.experiment, found.experiment_id) == (store, None, experiment.experiment_id)


def test_what_is_given_wins_over_mlflows_state(store: str) -> None:
    mlflow.set_experiment("mine")
    found = resolve_destination(Options(experiment="given", run_name="called"))
    elsewhere = resolve_destination(Options(tracking_uri="http://other:5000"))

    assert (found.experiment, found.experiment_id, found.run_name) == ("given", None, "called")
    assert (elsewhere.tracking_uri, elsewhere.experiment) == ("http://other:5000", "Default")


def test_the_active_run_is_adopted_once_and_parent_of_who_comes_later(store: str) -> None:
    mlflow.set_experiment("mine")
    with mlflow.start_run() as active:
        first, second = (resolve_destination(Options(), exclusively=True) for _ in range(2))

    assert (first.run_id, first.parent_run_id) == (active.info.run_id, None)
    assert (second.run_id, second.parent_run_id) == (None, active.info.run_id)
    assert second.experiment_id == active.info.experiment_id


def test_an_active_run_of_another_store_is_not_adopted_and_exclusively_none_is(store: str) -> None:
    with mlflow.start_run():
        assert resolve_destination(Options(tracking_uri="http://other:5000")).run_id is None
        assert resolve_destination(Options(exclusive=True)).run_id is None


def test_a_run_of_mlflow_run_is_adopted_and_the_environment_left_alone(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")

    for _ in range(2):
        assert resolve_destination(Options()).run_id == "0123456789abcdef0123456789abcdef"


def test_each_thread_has_an_active_run_of_its_own(store: str) -> None:
    found: dict[str, str | None] = {}

    def resolve(name: str) -> None:
        with mlflow.start_run(run_name=name) as active:
            found[active.info.run_id] = resolve_destination(Options(), exclusively=True).run_id

    threads = [threading.Thread(target=resolve, args=(f"fold {i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 2
    assert all(active == adopted for active, adopted in found.items())
    assert resolve_destination(Options()).run_id is None


def test_a_run_that_was_given_back_can_be_taken_again() -> None:
    assert [take("one"), take("one")] == [True, False]
    release("one")
    assert take("one")
    release("one")


def test_a_password_is_not_carried_along_but_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Destination("http://me:secret@tracking:5000", "Default", None, None)
    sent = given.without_secret()

    assert "secret" not in repr(sent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given.tracking_uri)
    assert sent.place["tracking_uri"] == given.tracking_uri
