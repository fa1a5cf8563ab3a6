"""Where a run goes: what is given wins, else MLflow's environment variables, else a store in the working directory."""

from pathlib import Path

import pytest

from mlflow_yolo.tracking.stores.target import resolve_target


def test_without_anything_runs_go_to_the_default_experiment_of_a_store_here(tmp_path: Path) -> None:
    target = resolve_target(environment={})

    assert target.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert (target.experiment, target.experiment_id, target.run_id, target.run_name) == ("Default", None, None, None)


def test_mlflows_variables_are_honoured() -> None:
    target = resolve_target(
        environment={
            "MLFLOW_TRACKING_URI": "http://tracking:5000",
            "MLFLOW_EXPERIMENT_NAME": "cells",
            "MLFLOW_RUN_ID": "abc",
            "MLFLOW_RUN_NAME": "deep",
        }
    )

    assert (target.tracking_uri, target.experiment, target.run_id, target.run_name) == (
        "http://tracking:5000",
        "cells",
        "abc",
        "deep",
    )


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"MLFLOW_RUN": "theirs"}, "theirs"),
        ({"MLFLOW_RUN": "theirs", "MLFLOW_RUN_NAME": "ours"}, "ours"),
    ],
)
def test_ultralytics_own_variable_names_the_run_where_mlflows_does_not(environment: dict[str, str], name: str) -> None:
    assert resolve_target(environment=environment).run_name == name


def test_what_is_given_wins_over_the_environment() -> None:
    environment = {
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "MLFLOW_EXPERIMENT_NAME": "cells",
        "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_RUN_NAME": "deep",
    }

    target = resolve_target(
        tracking_uri="http://other:5000", experiment="roads", run_name="flat", environment=environment
    )
    assert (target.tracking_uri, target.experiment, target.experiment_id, target.run_name) == (
        "http://other:5000",
        "roads",
        None,
        "flat",
    )


def test_an_experiment_id_stands_alone_and_gives_way_to_a_name() -> None:
    alone = resolve_target(environment={"MLFLOW_EXPERIMENT_ID": "7"})
    both = resolve_target(environment={"MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_EXPERIMENT_NAME": "cells"})

    assert (alone.experiment, alone.experiment_id, alone.place_name) == (None, "7", "id 7")
    assert (both.experiment, both.experiment_id, both.place_name) == ("cells", None, "cells")


def test_the_default_experiment_is_the_same_place_by_name_and_by_id() -> None:
    # Under `mlflow run` it comes as id, from the command line as name; a study must resume across the two.
    by_id = resolve_target(environment={"MLFLOW_EXPERIMENT_ID": "0"})

    assert by_id.place_name == resolve_target(environment={}).place_name == "Default"


def test_a_relative_store_means_the_same_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = resolve_target(tracking_uri="sqlite:///here.db", environment={})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert target.tracking_uri == f"sqlite:///{tmp_path / 'here.db'}"


def test_a_place_is_what_open_run_takes() -> None:
    assert resolve_target(tracking_uri="http://tracking:5000", experiment="cells", environment={}).place == {
        "tracking_uri": "http://tracking:5000",
        "experiment": "cells",
        "experiment_id": None,
    }
