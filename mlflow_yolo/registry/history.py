"""What happened to a registered model: a log that can only grow, in which two writers never take the same place.

MLflow moves an alias without asking what it was (the last writer wins) and keeps no record of it. It does refuse to
change a run's param, and its database holds one value a key. So each registered model has a history run; entry n is
its param `entry/0000n`. Whoever writes that param first has the place, the other is refused: a compare-and-set on any
store that MLflow has, and a log that MLflow itself does not let anybody rewrite.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError, StoreError
from mlflow_yolo.figures.table import markdown_table, text_table

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel
    from mlflow.tracking import MlflowClient

PROMOTE, ROLL_BACK, CHALLENGE, MOVED = "promote", "rollback", "challenge", "moved"
"""What an entry says: a version became champion, the one before it came back, a version became challenger, and an
alias was moved by other means than this package's."""

_ENTRY, _DONE = "entry/", "done/"
_MOST_CHARACTERS = 5000
"""Characters of a note; MLflow itself takes 6,000 in a param."""


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Attributes:
        action: `promote`, `rollback`, `challenge` or `moved`.
        target: Where the model is to run, as in `champion-<target>`.
        version: The version that the alias names from then on.
        replaced: The version that it named before, empty for none.
        by: Who did it.
        reason: Why, in the user's words.
        overrides: Gates that had failed and were overridden.
        number: Place in the log, from 1; 0 before it has one.
        at: Time, ISO 8601 in UTC.
        id: Tells it from an equal one of another writer.
        done: Whether the aliases are known to have followed.
    """

    action: str
    target: str
    version: str
    replaced: str = ""
    by: str = ""
    reason: str = ""
    overrides: tuple[str, ...] = ()
    number: int = 0
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    done: bool = False


@dataclass(frozen=True)
class History:
    """The log of one registered model.

    Attributes:
        name: The model.
        run_id: Its history run.
        entries: In the order in which they happened.
        aliases: What each alias names now, read after the entries.
    """

    name: str
    run_id: str
    entries: tuple[Entry, ...]
    aliases: Mapping[str, str]

    def last(self, target: str) -> Entry | None:
        """Return the newest entry that says who is champion of a target."""
        return next((e for e in reversed(self.entries) if e.target == target and e.action != CHALLENGE), None)

    def champions(self, target: str) -> list[str]:
        """Return the versions that were champion of a target and were not rolled back, the present one last."""
        stack: list[str] = []
        for entry in self.entries:
            if entry.target != target or entry.action == CHALLENGE:
                continue
            if entry.action == ROLL_BACK:
                # What lay between was skipped because it had been deleted.
                while stack and stack[-1] != entry.version:
                    stack.pop()
            if not stack or stack[-1] != entry.version:
                stack.append(entry.version)
        return stack


NOT_THERE, THERE_ALREADY = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
"""Codes of MLflow's errors."""


def code_of(error: Exception) -> str:
    """Return the code of an error of MLflow or of `quick_client`, empty for any other; MLflow need not be imported."""
    return str(getattr(error, "error_code", ""))


def create_model(client: "MlflowClient", name: str, *, experiment_id: str = "0") -> None:
    """Create a registered model with its history run, where there is none yet.

    The run comes first and its id goes in with the model, whose name MLflow gives away only once: of two that create it
    at the same time, one keeps its run and the other removes its own.

    Args:
        client: Of the registry.
        name: The model.
        experiment_id: Where the history run goes.
    """
    if _find(client, name) is not None:
        open_history(client, name, experiment_id=experiment_id)
        return
    run_id = _create_run(client, name, experiment_id)
    try:
        client.create_registered_model(name, tags={keys.TAG_HISTORY: run_id})
    except Exception as error:
        model = _find(client, name)
        if model is not None and model.tags.get(keys.TAG_HISTORY) == run_id:
            return  # it was created, and the answer was lost on its way
        client.delete_run(run_id)
        if code_of(error) != THERE_ALREADY:
            raise


def open_history(client: "MlflowClient", name: str, *, experiment_id: str = "0") -> str:
    """Return the id of a model's history run; a model that was registered by other means gets one.

    Raises:
        ArgumentError: There is no such model.
    """
    model = _find(client, name)
    if model is None:
        raise ArgumentError(f"name={name} is not registered. Register a version first: mlflow-yolo register.")
    if run_id := model.tags.get(keys.TAG_HISTORY):
        return str(run_id)
    client.set_registered_model_tag(name, keys.TAG_HISTORY, _create_run(client, name, experiment_id))
    return str(client.get_registered_model(name).tags[keys.TAG_HISTORY])  # of two writers the last one's


def read_history(client: "MlflowClient", name: str) -> History:
    """Return what happened to a model, and where its aliases point now.

    Raises:
        ArgumentError: There is no such model.
        StoreError: Its history run was deleted.
    """
    run_id = open_history(client, name)
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if code_of(error) != NOT_THERE:
            raise
        raise _history_lost(name, run_id) from error
    if run.info.lifecycle_stage != "active":
        raise _history_lost(name, run_id)
    aliases = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    return History(name, run_id, tuple(_parse(run.data.params)), aliases)


def append(client: "MlflowClient", history: History, entry: Entry) -> Entry | None:
    """Write an entry behind the last one of `history` and return it with its number.

    Returns:
        None where somebody else has written there since `history` was read: read it again.
    """
    number = len(history.entries) + 1
    entry = replace(entry, number=number)
    content = {name: value for name, value in asdict(entry).items() if name not in ("number", "done")}
    if _take(client, history.run_id, f"{_ENTRY}{number:05d}", json.dumps(content, ensure_ascii=False)):
        return entry
    return None


def mark_done(client: "MlflowClient", history: History, entry: Entry) -> None:
    """Note that the aliases have followed an entry."""
    _take(client, history.run_id, f"{_DONE}{entry.number:05d}", entry.id)


def write_note(client: "MlflowClient", history: History) -> None:
    """Show the history as the note of its run."""
    lines = markdown_table(*_table(history.entries))
    client.set_tag(history.run_id, keys.TAG_NOTE, f"Promotions of `{history.name}`.\n\n{lines}"[-_MOST_CHARACTERS:])


def history_text(history: History) -> str:
    """Return the lines that `mlflow-yolo history` prints."""
    now = ", ".join(f"{alias} = version {version}" for alias, version in sorted(history.aliases.items()))
    if not history.entries:
        return f"{history.name} was never promoted. {now}".strip()
    return f"{text_table(*_table(history.entries))}\n\nnow: {now or 'no alias'}"


def _table(entries: Iterable[Entry]) -> tuple[Sequence[str], list[list[object]]]:
    columns = ["at (UTC)", "what", "target", "version", "instead of", "by", "overridden", "reason"]
    rows: list[list[object]] = [
        [e.at[:19].replace("T", " "), e.action, e.target, e.version, e.replaced, e.by, ", ".join(e.overrides), e.reason]
        for e in entries
    ]
    return columns, rows


def _find(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    try:
        return client.get_registered_model(name)
    except Exception as error:
        if code_of(error) != NOT_THERE:
            raise
        return None


def _create_run(client: "MlflowClient", name: str, experiment_id: str) -> str:
    tags = {keys.TAG_NAME: f"{name}: promotions", keys.TAG_NOTE: f"Promotions of `{name}`."}
    run_id = str(client.create_run(experiment_id, tags=tags).info.run_id)
    client.update_run(run_id, status="FINISHED")  # it is a log, not work: nothing is under way in it
    return run_id


def _take(client: "MlflowClient", run_id: str, key: str, value: str) -> bool:
    """Write a param, and return whether it holds this value now: an answer that is lost on its way decides nothing."""
    try:
        client.log_param(run_id, key, value)
        return True
    except Exception:
        found = client.get_run(run_id).data.params.get(key)
        if found is None:
            raise
        return bool(found == value)


def _parse(params: Mapping[str, Any]) -> Iterable[Entry]:
    done = {key.removeprefix(_DONE) for key in params if key.startswith(_DONE)}
    for key in sorted(key for key in params if key.startswith(_ENTRY)):
        place = key.removeprefix(_ENTRY)
        content = json.loads(params[key])
        content["overrides"] = tuple(content["overrides"])
        yield Entry(**content, number=int(place), done=place in done)


def _history_lost(name: str, run_id: str) -> StoreError:
    return StoreError(
        f"the history of {name} is gone: run {run_id} was deleted. Restore that run in MLflow, or remove the tag "
        f"{keys.TAG_HISTORY} of the model to begin a new one."
    )
