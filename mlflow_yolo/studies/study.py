"""A study on disk: what is asked, which trials have a result, and what an interrupted one leaves to do.

    <output>/<study>/study.json             the question, written once
    <output>/<study>/<trial>/attempt-1/     one try at one trial: job.json, run.json, journal, result.json

A trial is finished exactly when one of its attempts has a `result.json` that says so; nothing else is believed, so a
kill at any moment leaves a study that the next start can read. The parent run's own journal lies in the study folder.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlflow_yolo.exceptions import ArgumentError, WorkError
from mlflow_yolo.training.job import RESULT, read_json, write_json

STATE = "study.json"


@dataclass(frozen=True)
class Trial:
    """One configuration with one seed.

    Attributes:
        key: Unique in the study and usable as a folder name: `freeze-10_seed-0`.
        name: How people call it: `freeze=10 seed=0`.
        params: The study's dimensions, logged as params of the child run.
        plan: The training plan as JSON-able data.
    """

    key: str
    name: str
    params: Mapping[str, int | float | str]
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study: its folder, its identity and its trials.

    Attributes:
        directory: `<output>/<name>`.
        name: The study's name.
        uid: The uid of its parent run.
        config: The question, as JSON-able data.
        threads: Threads of each worker, fixed when the study was made so that resuming does not change results.
        trials: In the order in which they are to be run.
    """

    directory: Path
    name: str
    uid: str
    config: Mapping[str, Any]
    threads: int
    trials: Sequence[Trial]

    def attempts(self, trial: Trial) -> list[Path]:
        """Return the folders of a trial's attempts, oldest first."""
        found = (self.directory / trial.key).glob("attempt-*")
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))

    def result(self, trial: Trial) -> tuple[Path, dict[str, Any]] | None:
        """Return the folder and result of a trial's finished attempt, or None."""
        for attempt in self.attempts(trial):
            found = read_result(attempt)
            if found and found["status"] == "finished":
                return attempt, found
        return None

    def pending(self) -> list[Trial]:
        """Return the trials that have no result yet."""
        return [trial for trial in self.trials if self.result(trial) is None]

    def new_attempt(self, trial: Trial, run: Mapping[str, Any]) -> Path:
        """Return the job file of a fresh attempt at a trial.

        Args:
            trial: The trial.
            run: Arguments of `tracking.run.open_run` for the child run.
        """
        number = len(self.attempts(trial)) + 1
        attempt = self.directory / trial.key / f"attempt-{number}"
        attempt.mkdir(parents=True)
        job = {
            "plan": trial.plan,
            "params": trial.params,
            "shared": str(self.directory / "shared"),
            "run": {**run, "uid": uuid.uuid4().hex},
        }
        write_json(attempt / "job.json", job)
        return attempt / "job.json"


def read_result(attempt: Path) -> dict[str, Any] | None:
    """Return the result of an attempt, or None where it has none."""
    return read_json(attempt / RESULT) if (attempt / RESULT).exists() else None


def default_name(prefix: str, config: Mapping[str, Any]) -> str:
    """Return `<prefix>-` and 8 hex digits of the configuration."""
    text = json.dumps(config, sort_keys=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def open_study(
    output: Path,
    name: str,
    *,
    config: Mapping[str, Any],
    trials: Sequence[Trial],
    workers: int = 1,
    threads: int | None = None,
) -> Iterator[Study]:
    """Yield the study of this name, new or as an earlier process left it, and hold it for this process.

    Args:
        output: The folder of all studies.
        name: The study's name.
        config: The question; it must be the same as when the study was made.
        trials: Its trials.
        workers: Processes at once, which decides how many threads each may use.
        threads: Threads of each, instead.

    Raises:
        ArgumentError: The folder cannot be written, the name belongs to another question, or another process runs it.
    """
    directory = output.expanduser().resolve() / name
    lock = FileLock(directory / ".lock", timeout=5)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        state = _read_or_write_state(directory, name, config, threads or max(1, (os.cpu_count() or 1) // workers))
    except Timeout:
        raise ArgumentError(
            f"study {name} is being run by another process. Wait for it, or name another with --study."
        ) from None
    except OSError as error:
        raise ArgumentError(
            f"output={output} cannot be written: {error.strerror or error}. Choose another folder with --output."
        ) from error
    try:
        _check_same_question(name, state["config"], config)
        yield Study(directory, name, state["uid"], config, state["threads"], trials)
    finally:
        lock.release()


def _read_or_write_state(directory: Path, name: str, config: Mapping[str, Any], threads: int) -> dict[str, Any]:
    file = directory / STATE
    if file.exists():
        return read_json(file)
    state = {"name": name, "uid": uuid.uuid4().hex, "created": time.time(), "threads": threads, "config": dict(config)}
    write_json(file, state)
    return read_json(file)  # as a later start will read it: JSON turns tuples into lists


def _check_same_question(name: str, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ArgumentError when a study of this name asks something else."""
    now = json.loads(json.dumps(config))
    for key in sorted({*earlier, *now}):
        if earlier.get(key) != now.get(key):
            raise ArgumentError(
                f"study {name} was started with {key}={earlier.get(key)}, not {now.get(key)}. "
                f"Use the same value to resume it, or another name with --study."
            )


def wait_until_free(directory: Path, *, is_owned: Any, timeout_s: float = 30.0) -> None:
    """Wait for a worker of a killed driver to be gone.

    Raises:
        WorkError: It is still there after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while is_owned(directory):
        if time.monotonic() > deadline:
            raise WorkError(f"{directory} is still used by another process. Stop it and start again.")
        time.sleep(0.2)
