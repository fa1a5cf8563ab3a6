"""Aliases follow the history, whoever dies or comes in between."""

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.registry.champions import alias_of, challenge, crown, roll_back, settled
from mlflow_yolo.registry.history import CHALLENGE, MOVED, PROMOTE, ROLL_BACK, Entry, append, read_history

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class Killed(BaseException):
    """What a process that dies in the middle of its writes looks like to the registry."""


class Dying:
    """A client that lets so many writes through and dies at the next one, before or after it was carried out."""

    WRITES = ("log_param", "set_registered_model_alias", "delete_registered_model_alias", "set_tag")

    def __init__(self, client: Any, n_writes: int, *, after: bool) -> None:
        self._client, self._left, self._after = client, n_writes, after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in self.WRITES:
            return call

        def write(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Killed
            result = call(*arguments, **named)
            if self._left < 0:
                raise Killed
            return result

        return write


def aliases(client: "MlflowClient", name: str = "cells") -> dict[str, str]:
    return dict(read_history(client, name).aliases)


def promote(client: Any, version: str, expected: str, **more: Any) -> Entry:
    return crown(client, "cells", version=version, target="cpu", expected=expected, by="anna", **more)


def test_promotions_move_the_champion_and_remember_the_one_before(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    assert aliases(client) == {"champion-cpu": "1"}
    promote(client, "3", "1", reason="faster", overrides=("size",))
    assert aliases(client) == {"champion-cpu": "3", "previous-cpu": "1"}
    first, second = read_history(client, cells).entries
    assert (first.action, first.version, first.replaced, first.done) == (PROMOTE, "1", "", True)
    assert (second.version, second.replaced, second.by, second.reason) == ("3", "1", "anna", "faster")
    assert second.overrides == ("size",)


def test_targets_do_not_know_each_other(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    crown(client, cells, version="2", target="gpu", expected="", by="anna")
    assert aliases(client) == {"champion-cpu": "1", "champion-gpu": "2"}
    with pytest.raises(ArgumentError, match="version 2"):
        roll_back(client, cells, target="gpu", by="anna")


def test_rollbacks_go_back_step_by_step_and_say_when_there_is_nothing_left(client: "MlflowClient", cells: str) -> None:
    for version, before in (("1", ""), ("2", "1"), ("3", "2")):
        promote(client, version, before)
    entry = roll_back(client, cells, target="cpu", by="anna", reason="too slow")
    assert (entry.action, entry.version, entry.replaced, entry.reason) == (ROLL_BACK, "2", "3", "too slow")
    assert aliases(client) == {"champion-cpu": "2", "previous-cpu": "1"}
    roll_back(client, cells, target="cpu", by="anna")
    assert aliases(client) == {"champion-cpu": "1"}
    with pytest.raises(ArgumentError, match="no champion before"):
        roll_back(client, cells, target="cpu", by="anna")
    assert aliases(client) == {"champion-cpu": "1"}


def test_a_rollback_passes_over_versions_that_were_deleted(client: "MlflowClient", cells: str) -> None:
    for version, before in (("1", ""), ("2", "1"), ("3", "2")):
        promote(client, version, before)
    client.delete_model_version(cells, "2")
    assert roll_back(client, cells, target="cpu", by="anna").version == "1"
    assert aliases(client) == {"champion-cpu": "1"}


def test_a_rollback_of_a_champion_that_is_gone_already_takes_nobody_else_back(
    client: "MlflowClient", cells: str
) -> None:
    promote(client, "1", "")
    promote(client, "2", "1")
    with pytest.raises(WorkError, match=r"version 2 .*version 3"):
        roll_back(client, cells, target="cpu", by="a watch", expected="3")
    assert aliases(client)["champion-cpu"] == "2"
    assert roll_back(client, cells, target="cpu", by="a watch", expected="2").version == "1"


def test_nothing_to_roll_back_without_a_champion(client: "MlflowClient", cells: str) -> None:
    with pytest.raises(ArgumentError, match="champion-cpu"):
        roll_back(client, cells, target="cpu", by="anna")


def test_a_promotion_that_was_overtaken_moves_nothing_and_names_the_winner(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    crown(client, cells, version="2", target="cpu", expected="1", by="ben")
    with pytest.raises(WorkError, match=r"version 2 .*by ben.*version 1"):
        promote(client, "3", "1")
    assert aliases(client) == {"champion-cpu": "2", "previous-cpu": "1"}
    assert len(read_history(client, cells).entries) == 2


def test_a_challenger_stands_beside_the_champion_until_it_is_promoted(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    entry = challenge(client, cells, version="2", target="cpu", by="anna")
    assert entry.action == CHALLENGE
    assert aliases(client) == {"champion-cpu": "1", "challenger-cpu": "2"}
    promote(client, "2", "1")
    assert aliases(client) == {"champion-cpu": "2", "previous-cpu": "1"}


def test_an_alias_that_was_moved_by_hand_is_believed_and_written_down(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    promote(client, "2", "1")
    client.set_registered_model_alias(cells, "champion-cpu", "4")
    history = settled(client, cells, "cpu", by="anna")
    assert [(entry.action, entry.version) for entry in history.entries][-1] == (MOVED, "4")
    assert aliases(client) == {"champion-cpu": "4", "previous-cpu": "2"}
    assert roll_back(client, cells, target="cpu", by="anna").version == "2"


def test_a_champion_that_was_deleted_leaves_no_champion_and_can_be_replaced(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    client.delete_model_version(cells, "1")
    assert aliases(client) == {}
    promote(client, "2", "")
    assert aliases(client)["champion-cpu"] == "2"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("n_writes", range(6))
def test_a_death_between_any_two_writes_leaves_a_champion_and_the_next_one_goes_on(
    client: "MlflowClient", cells: str, n_writes: int, after: bool
) -> None:
    promote(client, "1", "")
    promote(client, "2", "1")
    with contextlib.suppress(Killed):
        promote(Dying(client, n_writes, after=after), "3", "2")
    begun = len(read_history(client, cells).entries) == 3
    assert aliases(client)["champion-cpu"] in ("2", "3")
    history = settled(client, cells, "cpu", by="ben")
    now = "3" if begun else "2"
    assert history.aliases["champion-cpu"] == now
    assert aliases(client)["previous-cpu"] == str(int(now) - 1)
    assert [entry.action for entry in history.entries] == [PROMOTE] * (3 if begun else 2)
    promote(client, "4", now)
    assert aliases(client) == {"champion-cpu": "4", "previous-cpu": now}


def test_an_entry_of_a_dead_writer_is_finished_before_anything_else(client: "MlflowClient", cells: str) -> None:
    promote(client, "1", "")
    append(client, read_history(client, cells), Entry(PROMOTE, "cpu", "2", "1"))
    with pytest.raises(WorkError, match="version 2"):
        promote(client, "3", "1")
    assert aliases(client) == {"champion-cpu": "2", "previous-cpu": "1"}


def test_of_many_promoters_at_once_one_wins_and_the_others_are_told(
    store: str, client: "MlflowClient", make_versions: Callable[[str, int], list[str]]
) -> None:
    versions = make_versions("cells", 8)

    def try_it(version: str) -> str | None:
        try:
            return promote(client, version, "").version
        except WorkError:
            return None

    with ThreadPoolExecutor(len(versions)) as pool:
        won = [version for version in pool.map(try_it, random.Random(0).sample(versions, len(versions))) if version]
    history = settled(client, "cells", "cpu", by="anna")
    assert len(won) == 1
    assert [entry.version for entry in history.entries] == won
    assert history.aliases == {"champion-cpu": won[0]}


@pytest.mark.parametrize("target", ["", "a b", "x/y", "@"])
def test_a_target_that_no_alias_can_hold_is_named(target: str) -> None:
    with pytest.raises(ArgumentError, match=f"target={target}"):
        alias_of("champion", target)
