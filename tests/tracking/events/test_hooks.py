"""Hooks stand behind what was there, and leave without a trace."""

from typing import Any

import cloudpickle
import pytest

from mlflow_yolo.tracking.events.hooks import Hook, attach_hooks, detach_hooks, listeners, take_off_built_in


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def handle(self, event: str, subject: Any) -> None:
        self.heard.append((event, subject))


def test_hooks_are_called_last_and_leave_other_entries_where_they_were() -> None:
    callbacks: dict[str, list[Any]] = {"start": [print], "end": []}
    lists = dict(callbacks)
    one, two = Listener(), Listener()
    attach_hooks(callbacks, one, ["start", "end"])
    attach_hooks(callbacks, two, ["end"])
    callbacks["end"][0]("trainer")

    assert one.heard == [("end", "trainer")]
    assert listeners(callbacks, Listener) == [one, two]
    detach_hooks(callbacks, one)
    assert (callbacks["start"], listeners(callbacks, Listener)) == ([print], [two])
    assert all(callbacks[event] is lists[event] for event in lists)


def test_a_missing_event_is_named_and_nothing_is_attached() -> None:
    callbacks: dict[str, list[Any]] = {"start": []}
    with pytest.raises(AttributeError, match="no event end"):
        attach_hooks(callbacks, Listener(), ["start", "end"])

    assert callbacks == {"start": []}


def test_a_hook_survives_pickling_with_its_listener() -> None:
    copy = cloudpickle.loads(cloudpickle.dumps(Hook(Listener(), "start")))
    copy("trainer")

    assert copy.listener.heard == [("start", "trainer")]


def test_ultralytics_own_callback_is_taken_off_and_nothing_else() -> None:
    def theirs(_: Any) -> None: ...

    theirs.__module__ = "ultralytics.utils.callbacks.mlflow"
    callbacks = {"start": [print, theirs], "end": [theirs]}
    take_off_built_in(callbacks)

    assert callbacks == {"start": [print], "end": []}
