"""The folder a command works in, and its run: the same command on the same folder goes on where it stopped."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.command_run import command_run, log_dataset
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.store import ensure_store
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variants.subject import Subject

_QUESTION = "question.json"
DEFAULT_OUTPUT = Path("runs")


@dataclass(frozen=True, eq=False)
class Workplace:
    """Where a command works.

    Attributes:
        directory: Its folder.
        run: Its open run.
        tracking: Where its children go.
    """

    directory: Path
    run: TrackedRun
    tracking: Target


@contextmanager
def workplace(
    word: str, output: str | None, subject: Subject, question: Mapping[str, Any], tracking: Target
) -> Iterator[Workplace]:
    """Open the folder and the run of a command.

    Args:
        word: The command.
        output: The folder; None for one below `runs` named after the question, so that repeating it goes on.
        subject: What the command is about.
        question: Its parameters, logged as the run's params; what makes two calls the same.
        tracking: Where the run goes.

    Raises:
        ArgumentError: The folder holds something else, or cannot be written.
        StoreError: The tracking store cannot be used.
    """
    asked = {"command": word, **subject_params(subject), **question}
    directory = _free(_default(word, asked) if output is None else Path(output), asked)
    ensure_store(tracking.tracking_uri)  # one that cannot be used is said before anything is written
    _make(directory)
    (directory / _QUESTION).write_text(json.dumps(asked, indent=1, default=str), encoding="utf-8")
    known = read_run_file(directory)
    with command_run(tracking, directory, uid=known.uid if known else None) as run:
        run.log_params({name: value for name, value in asked.items() if name != "command"})
        log_dataset(run, subject.dataset, context=word)
        yield Workplace(directory, run, tracking)


def subject_params(subject: Subject) -> dict[str, Any]:
    """Return what a run says of its checkpoint and its data."""
    return {
        "model": subject.label,
        "data": f"{subject.dataset.name} ({subject.dataset.fingerprint})",
        "split": subject.split,
        "imgsz": subject.imgsz,
    }


def _default(word: str, asked: Mapping[str, Any]) -> Path:
    text = json.dumps(asked, sort_keys=True, default=str)
    return DEFAULT_OUTPUT / f"{word}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _free(output: Path, asked: Mapping[str, Any]) -> Path:
    """Return the folder a user named, if it is new, empty, or was begun by the same command."""
    directory = output.expanduser().resolve()
    if directory.is_dir() and any(directory.iterdir()):
        earlier = _earlier(directory)
        if earlier is None:
            raise ArgumentError(f"output={output} is not empty. Name a new folder.")
        theirs = json.loads(json.dumps(asked, default=str))
        if other := sorted(name for name in {*earlier, *theirs} if earlier.get(name) != theirs.get(name)):
            name = other[0]
            raise ArgumentError(
                f"output={output} was begun with {name}={earlier.get(name)}, not {theirs.get(name)}. "
                "Name a new folder, or repeat the command as it was."
            )
    return directory


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"output={directory} cannot be written: {error.strerror}. Choose another folder."
        ) from error


def _earlier(directory: Path) -> dict[str, Any] | None:
    """Return what an earlier command on this folder was asked, None where nothing says so."""
    try:
        question = json.loads((directory / _QUESTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return question if isinstance(question, dict) else None
