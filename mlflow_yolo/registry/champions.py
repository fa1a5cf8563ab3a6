"""Who is champion: aliases that follow the history.

    champion-<target>    the version that is served there
    previous-<target>    the one that a rollback brings back
    challenger-<target>  the one that is tried beside it

An entry is written first and decides; the aliases follow it. A process that dies in between leaves the old champion
served, and whoever comes next lets the aliases catch up. An alias that somebody moved by hand is believed: the history
then says `moved`.
"""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.registry import history as log
from mlflow_yolo.registry.history import Entry, History

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"

_TARGET = re.compile(r"[\w-]+")
_MOST_ROUNDS = 100
"""Times that a change is tried while others write into the same history; fifty at once need at most fifty."""

_PAUSE_S = 0.5
"""Time in which a writer that was overtaken sets right what it set too late."""


def alias_of(role: str, target: str) -> str:
    """Return the alias of a role: `champion-cpu`.

    Raises:
        ArgumentError: The target holds what an alias must not.
    """
    if not _TARGET.fullmatch(target):
        raise ArgumentError(f"target={target} cannot be part of an alias. Use letters, digits, - and _, as in cpu.")
    return f"{role}-{target}"


def champion(history: History, target: str) -> str:
    """Return the version that is champion of a target, empty for none."""
    return history.aliases.get(alias_of(CHAMPION, target), "")


def settled(client: "MlflowClient", name: str, target: str, *, by: str) -> History:
    """Return the history after its aliases have caught up with it, and it with an alias that was moved by hand."""
    for _ in range(_MOST_ROUNDS):
        history = log.read_history(client, name)
        last, now = history.last(target), champion(history, target)
        if last is None and not now:
            return history
        if last is not None and (last.version == now or not last.done):
            if last.done:
                return history
            _follow(client, history, target)
            continue
        if not now:
            return history  # the alias was removed by hand, or its version deleted: nobody is champion
        time.sleep(_PAUSE_S)
        history = log.read_history(client, name)
        if history.last(target) != last or champion(history, target) != now:
            continue  # somebody is at it
        moved = Entry(log.MOVED, target, now, last.version if last else "", "unknown", f"seen by {by}")
        if log.append(client, history, moved) is not None:
            _follow(client, log.read_history(client, name), target)
    raise _too_busy(name)


def crown(
    client: "MlflowClient",
    name: str,
    *,
    version: str,
    target: str,
    expected: str,
    by: str,
    reason: str = "",
    overrides: Sequence[str] = (),
) -> Entry:
    """Make a version the champion of a target and return the entry of it.

    Args:
        client: Of the registry.
        name: The model.
        version: The new champion.
        target: Where it is to run.
        expected: The champion that it was compared with, empty for none.
        by: Who does it.
        reason: Why.
        overrides: Gates that had failed and were overridden.

    Raises:
        WorkError: Another version has become champion since; nothing was moved.
    """
    for _ in range(_MOST_ROUNDS):
        history = settled(client, name, target, by=by)
        if (now := champion(history, target)) != expected:
            raise _overtaken(history, target, now, expected)
        entry = Entry(log.PROMOTE, target, version, now, by, reason, tuple(overrides))
        if (written := log.append(client, history, entry)) is not None:
            return _finish(client, name, written)
    raise _too_busy(name)


def roll_back(
    client: "MlflowClient", name: str, *, target: str, by: str, reason: str = "", expected: str | None = None
) -> Entry:
    """Bring back the version that was champion before, and return the entry of it.

    Versions that were deleted since are passed over.

    Args:
        client: Of the registry.
        name: The model.
        target: Where it runs.
        by: Who does it.
        reason: Why.
        expected: The champion that has to go; None for whoever it is.

    Raises:
        ArgumentError: There is no champion, or none before it.
        WorkError: Another version than `expected` is champion by now; nothing was moved.
    """
    for _ in range(_MOST_ROUNDS):
        history = settled(client, name, target, by=by)
        now = champion(history, target)
        if not now:
            raise ArgumentError(f"{name} has no {alias_of(CHAMPION, target)}. Promote a version first.")
        if expected is not None and now != expected:
            raise _overtaken(history, target, now, expected)
        before = _last_living(client, name, history.champions(target)[:-1], than=now)
        if before is None:
            raise ArgumentError(f"{name} version {now} has no champion before it for {target}. Promote another one.")
        entry = Entry(log.ROLL_BACK, target, before, now, by, reason)
        if (written := log.append(client, history, entry)) is not None:
            return _finish(client, name, written)
    raise _too_busy(name)


def challenge(client: "MlflowClient", name: str, *, version: str, target: str, by: str, reason: str = "") -> Entry:
    """Make a version the challenger of a target, which is tried beside the champion, and return the entry of it."""
    alias = alias_of(CHALLENGER, target)
    for _ in range(_MOST_ROUNDS):
        history = settled(client, name, target, by=by)
        entry = Entry(log.CHALLENGE, target, version, history.aliases.get(alias, ""), by, reason)
        if (written := log.append(client, history, entry)) is not None:
            client.set_registered_model_alias(name, alias, version)
            log.mark_done(client, history, written)
            log.write_note(client, log.read_history(client, name))
            return written
    raise _too_busy(name)


def _finish(client: "MlflowClient", name: str, entry: Entry) -> Entry:
    """Let the aliases follow an entry that was written just now."""
    history = log.read_history(client, name)
    _follow(client, history, entry.target)
    log.write_note(client, log.read_history(client, name))
    return entry


def _follow(client: "MlflowClient", history: History, target: str) -> None:
    """Move the aliases to where the newest entry says; two that do it at once both end at the newest."""
    for _ in range(_MOST_ROUNDS):
        last = history.last(target)
        assert last is not None
        # The way back first, so that it exists from the first moment on.
        wanted = _wanted(client, history, target)
        for alias, version in wanted.items():
            _point(client, history, alias, version)
        if history.aliases.get(alias_of(CHALLENGER, target)) == last.version:
            _point(client, history, alias_of(CHALLENGER, target), "")
        again = log.read_history(client, history.name)
        arrived = all(again.aliases.get(alias, "") == version for alias, version in wanted.items())
        if arrived and again.last(target) == last:
            log.mark_done(client, again, last)
            return
        history = again
    raise _too_busy(history.name)


def _wanted(client: "MlflowClient", history: History, target: str) -> dict[str, str]:
    """Return what the aliases should name, in the order in which they move; empty for what was deleted."""
    *before, now = history.champions(target)
    living = _last_living(client, history.name, [now], than="")
    previous = _last_living(client, history.name, before, than=now)
    return {alias_of(PREVIOUS, target): previous or "", alias_of(CHAMPION, target): living or ""}


def _point(client: "MlflowClient", history: History, alias: str, version: str) -> None:
    """Set an alias, or remove it for an empty version; what is so already costs nothing."""
    now = history.aliases.get(alias, "")
    if version and version != now:
        try:
            client.set_registered_model_alias(history.name, alias, version)
        except Exception:
            time.sleep(0.05)  # two that create one alias at once: one is refused, and finds it there now
            client.set_registered_model_alias(history.name, alias, version)
    elif now and not version:
        client.delete_registered_model_alias(history.name, alias)


def _last_living(client: "MlflowClient", name: str, versions: Sequence[str], *, than: str) -> str | None:
    for version in reversed(versions):
        try:
            client.get_model_version(name, version)
        except Exception as error:
            if log.code_of(error) != log.NOT_THERE:
                raise
            continue
        if version != than:
            return version
    return None


def _overtaken(history: History, target: str, now: str, expected: str) -> WorkError:
    last = history.last(target)
    who = f" by {last.by} at {last.at[11:19]} UTC" if last is not None else ""
    return WorkError(
        f"{history.name}: {f'version {now}' if now else 'no version'} has become {alias_of(CHAMPION, target)} "
        f"meanwhile{who}; it was taken for {f'version {expected}' if expected else 'none'}. "
        "Nothing was moved. Try again."
    )


def _too_busy(name: str) -> WorkError:
    return WorkError(f"the history of {name} was written by others {_MOST_ROUNDS} times in a row. Try again.")
