import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.stores.target import resolve_target
from mlflow_yolo.variants.workplace import Workplace, workplace
from tests.variants.made import a_subject

Open = Callable[..., AbstractContextManager[Workplace]]


@pytest.fixture
def opened(store: str, tmp_path: Path) -> Open:
    """Return a function that opens the workplace of a command for a small question."""

    def call(word: str = "export", *, output: str | None = "out", **question: Any) -> AbstractContextManager[Workplace]:
        subject = a_subject(tmp_path / "m.pt")
        return workplace(word, output, subject, {"ratio": 0.3, **question}, resolve_target(tracking_uri=store))

    return call


def test_the_run_has_the_question_as_params_and_the_data_as_input(
    opened: Open, client: MlflowClient, tmp_path: Path
) -> None:
    with opened() as place:
        assert place.directory == tmp_path / "out"

    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("out", "FINISHED")
    assert run.data.params == {
        "model": "m.pt (abababababab)",
        "data": "shapes (f00d)",
        "split": "test",
        "imgsz": "128",
        "ratio": "0.3",
    }
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("shapes", "f00d")


def test_the_same_question_on_the_same_folder_goes_on_in_the_same_run(opened: Open, client: MlflowClient) -> None:
    for value in (1.0, 2.0):
        with opened() as place:
            place.run.log_metrics({"value": value})

    (run,) = client.search_runs(["0"])
    assert run.data.metrics == {"value": 2.0}


def test_without_a_folder_the_question_decides_where_so_that_repeating_it_goes_on(opened: Open, tmp_path: Path) -> None:
    found = []
    for question in ({"epochs": 1}, {"epochs": 2}, {"epochs": 1}):
        with opened("prune", output=None, **question) as place:
            found.append(place.directory)

    assert found[0] == found[2] != found[1]
    assert found[0].parent == tmp_path / "runs"
    assert found[0].name.startswith("prune-")


@pytest.mark.parametrize(
    ("word", "question", "named"),
    [
        ("export", {"ratio": 0.5}, "ratio=0.3, not 0.5"),
        ("export", {"steps": 2}, "steps=None, not 2"),
        ("quantize", {}, "command=export, not quantize"),
    ],
)
def test_another_question_on_the_same_folder_is_refused_and_named(
    opened: Open, client: MlflowClient, word: str, question: dict[str, Any], named: str
) -> None:
    with opened():
        pass
    with pytest.raises(ArgumentError, match=named), opened(word, **question):
        pass
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"command": "export"'])
def test_a_folder_with_something_else_is_refused_and_left_alone(
    opened: Open, client: MlflowClient, tmp_path: Path, content: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ("question.json" if content else "mine.txt")).write_text(content)
    with pytest.raises(ArgumentError, match="output=out is not empty"), opened():
        pass
    assert len(os.listdir(tmp_path / "out")) == 1
    assert client.search_runs(["0"]) == []


def test_an_empty_folder_is_used_and_a_file_is_not(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with opened() as place:
        assert place.directory == tmp_path / "out"
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArgumentError, match=r"output=.*taken cannot be written: File exists"), opened(output="taken"):
        pass


def test_an_error_inside_closes_the_run_as_failed_and_the_next_call_goes_on(opened: Open, client: MlflowClient) -> None:
    with pytest.raises(RuntimeError, match="no"), opened():
        raise RuntimeError("no")
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FAILED"
    with opened():
        pass
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"


def test_the_run_that_mlflow_run_opened_is_taken_and_a_later_one_only_points_to_it(
    opened: Open, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (client.create_run("0", run_name=name).info.run_id for name in ("first", "second"))
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    with opened() as place:
        place.run.log_metrics({"value": 1.0})
    monkeypatch.setenv("MLFLOW_RUN_ID", second)
    with opened() as place:
        place.run.log_metrics({"value": 2.0})

    assert len(client.search_runs(["0"])) == 2
    assert client.get_run(first).data.metrics == {"value": 2.0}
    assert client.get_run(second).data.tags[keys.TAG_CONTINUES] == first
    assert client.get_run(second).data.metrics == {}


def test_the_same_run_of_mlflow_run_twice_does_not_point_to_itself(
    opened: Open, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    for _ in range(2):
        with opened():
            pass
    assert keys.TAG_CONTINUES not in client.get_run(run_id).data.tags
