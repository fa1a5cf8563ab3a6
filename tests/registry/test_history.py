"""The log of a registered model: it grows, nobody takes a place twice, and what is lost is said."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError, StoreError
from mlflow_yolo.registry.history import (
    CHALLENGE,
    MOVED,
    PROMOTE,
    ROLL_BACK,
    Entry,
    History,
    append,
    create_model,
    history_text,
    mark_done,
    open_history,
    read_history,
    write_note,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def history_of(*entries: tuple[str, str], target: str = "cpu") -> History:
    log = tuple(Entry(action, target, version, number=i) for i, (action, version) in enumerate(entries, start=1))
    return History("cells", "run", log, {})


def test_an_entry_is_read_back_as_it_was_written(client: "MlflowClient", cells: str) -> None:
    entry = Entry(PROMOTE, "cpu", "2", "1", "anna", "größer", ("latency", "size"))
    written = append(client, read_history(client, cells), entry)
    assert written is not None
    (read,) = read_history(client, cells).entries
    assert read == written
    assert (read.number, read.done, read.reason, read.overrides) == (1, False, "größer", ("latency", "size"))
    mark_done(client, read_history(client, cells), written)
    assert read_history(client, cells).entries[0].done


def test_a_place_in_the_log_is_taken_once(client: "MlflowClient", cells: str) -> None:
    seen = read_history(client, cells)
    first, second = Entry(PROMOTE, "cpu", "1"), Entry(PROMOTE, "cpu", "2")
    assert append(client, seen, first) is not None
    assert append(client, seen, second) is None
    assert [entry.id for entry in read_history(client, cells).entries] == [first.id]
    assert append(client, read_history(client, cells), second) is not None


def test_of_many_who_write_at_once_each_place_goes_to_one(client: "MlflowClient", cells: str) -> None:
    seen = read_history(client, cells)
    with ThreadPoolExecutor(8) as pool:
        won = [
            entry
            for entry in pool.map(lambda i: append(client, seen, Entry(PROMOTE, "cpu", str(i))), range(8))
            if entry
        ]
    assert len(won) == 1
    assert [entry.id for entry in read_history(client, cells).entries] == [won[0].id]


def test_mlflow_itself_refuses_to_rewrite_an_entry(client: "MlflowClient", cells: str) -> None:
    append(client, read_history(client, cells), Entry(PROMOTE, "cpu", "1"))
    with pytest.raises(MlflowException):
        client.log_param(open_history(client, cells), "entry/00001", "{}")


def test_of_two_who_create_a_model_at_once_one_history_remains(client: "MlflowClient") -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: create_model(client, "cells"), range(4)))
    run_id = open_history(client, "cells")
    runs = client.search_runs(["0"], filter_string="attributes.run_name = 'cells: promotions'")
    assert [run.info.run_id for run in runs] == [run_id]


def test_a_model_whose_creation_was_answered_by_nobody_keeps_its_history(client: "MlflowClient") -> None:
    class Silent:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def create_registered_model(self, *arguments: Any, **named: Any) -> None:
            client.create_registered_model(*arguments, **named)
            raise TimeoutError

    create_model(Silent(), "cells")  # type: ignore[arg-type]
    assert read_history(client, "cells").entries == ()


def test_a_model_that_was_registered_otherwise_gets_a_history_once(client: "MlflowClient") -> None:
    client.create_registered_model("cells")
    run_id = open_history(client, "cells")
    create_model(client, "cells")
    assert open_history(client, "cells") == run_id
    assert client.get_registered_model("cells").tags[keys.TAG_HISTORY] == run_id


def test_a_model_that_does_not_exist_is_named(client: "MlflowClient") -> None:
    with pytest.raises(ArgumentError, match="name=nobody"):
        read_history(client, "nobody")


def test_a_history_whose_run_was_deleted_is_not_begun_anew_in_silence(client: "MlflowClient", cells: str) -> None:
    run_id = open_history(client, cells)
    client.delete_run(run_id)
    with pytest.raises(StoreError, match=run_id):
        read_history(client, cells)


@pytest.mark.parametrize(
    ("entries", "champions"),
    [
        ([], []),
        ([(PROMOTE, "1"), (PROMOTE, "2"), (PROMOTE, "3")], ["1", "2", "3"]),
        ([(PROMOTE, "1"), (PROMOTE, "2"), (ROLL_BACK, "1")], ["1"]),
        ([(PROMOTE, "1"), (PROMOTE, "2"), (ROLL_BACK, "1"), (PROMOTE, "3")], ["1", "3"]),
        ([(PROMOTE, "1"), (PROMOTE, "2"), (PROMOTE, "3"), (ROLL_BACK, "1")], ["1"]),  # 2 had been deleted
        ([(PROMOTE, "1"), (CHALLENGE, "2"), (MOVED, "4")], ["1", "4"]),
        ([(PROMOTE, "1"), (PROMOTE, "2"), (PROMOTE, "1"), (ROLL_BACK, "2")], ["1", "2"]),
    ],
)
def test_a_rollback_takes_away_what_came_after(entries: list[tuple[str, str]], champions: list[str]) -> None:
    assert history_of(*entries).champions("cpu") == champions
    assert history_of(*entries).champions("gpu") == []


def test_the_text_names_who_what_and_where_the_aliases_are(
    client: "MlflowClient", make_versions: Callable[[str, int], list[str]]
) -> None:
    make_versions("cells", 1)
    assert "never promoted" in history_text(read_history(client, "cells"))
    append(client, read_history(client, "cells"), Entry(PROMOTE, "cpu", "1", by="anna", reason="first"))
    client.set_registered_model_alias("cells", "champion-cpu", "1")
    history = read_history(client, "cells")
    write_note(client, history)
    for text in (history_text(history), client.get_run(history.run_id).data.tags[keys.TAG_NOTE]):
        assert "anna" in text
        assert "first" in text
    assert "champion-cpu = version 1" in history_text(history)
