"""Our functions in Ultralytics' callback lists: put there, recognised again, and taken out without a trace."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

BUILT_IN = "ultralytics.utils.callbacks.mlflow"
"""The module of Ultralytics' own MLflow callback."""


class Listener(Protocol):
    """Something that events are handed to."""

    def handle(self, event: str, subject: Any) -> None:
        """Take note of an event of a trainer, validator or exporter; never raises."""


@dataclass(frozen=True, eq=False)
class Hook:
    """One entry of a callback list: hands its event to a listener. It pickles if the listener does."""

    listener: Listener
    event: str

    def __call__(self, subject: Any) -> None:
        self.listener.handle(self.event, subject)


def attach_hooks(callbacks: Mapping[str, list[Any]], listener: Listener, events: Iterable[str]) -> None:
    """Append a hook for each event behind what is there.

    Raises:
        AttributeError: This Ultralytics lacks one of the events; nothing was appended.
    """
    events = tuple(events)
    for event in events:
        if event not in callbacks:
            raise AttributeError(f"Ultralytics has no event {event}")
    for event in events:
        callbacks[event].append(Hook(listener, event))


def detach_hooks(callbacks: Mapping[str, list[Any]], listener: Listener) -> None:
    """Take the hooks of `listener` out, in place; other entries stay in their order."""
    for functions in callbacks.values():
        functions[:] = [function for function in functions if getattr(function, "listener", None) is not listener]


def listeners(callbacks: Mapping[str, list[Any]], kind: type[Any]) -> list[Any]:
    """Return the listeners of one kind that have hooks in `callbacks`, each once."""
    found = [f.listener for functions in callbacks.values() for f in functions if isinstance(f, Hook)]
    return list({id(listener): listener for listener in found if isinstance(listener, kind)}.values())


def take_off_built_in(callbacks: Mapping[str, list[Any]]) -> None:
    """Remove Ultralytics' own MLflow callback from a trainer's callbacks, in place."""
    for functions in callbacks.values():
        functions[:] = [function for function in functions if getattr(function, "__module__", "") != BUILT_IN]
