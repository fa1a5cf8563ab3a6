"""How a study goes, on the terminal: one bar over all epochs, one line per finished training."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from mlflow_yolo.studies.study import Trial


class Progress:
    """A bar over the epochs of all trials; where the terminal is a file, only the lines.

    Use as a context manager.

    Args:
        name: The study's name.
        n_trials: Trials in all.
        n_finished: Trials that were finished before.
        n_epochs: Epochs of a trial.
    """

    def __init__(self, name: str, *, n_trials: int, n_finished: int, n_epochs: int) -> None:
        self._n_epochs = n_epochs
        self._done: dict[str, int] = {}
        self._bar = tqdm(
            total=n_trials * n_epochs,
            initial=n_finished * n_epochs,
            desc=f"{name}: {n_finished}/{n_trials} trainings",
            unit="epoch",
            file=sys.stderr,
            disable=None,
        )
        self._name, self._n_finished, self._n_trials = name, n_finished, n_trials
        if n_finished:
            self._write(f"{name}: {n_finished} of {n_trials} trainings are finished already")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def epoch(self, trial: Trial, values: Mapping[str, Any]) -> None:
        """Move the bar by what a trial has done since it last said so."""
        epoch = int(values["epoch"])
        self._bar.update(epoch - self._done.get(trial.key, 0))
        self._done[trial.key] = epoch
        name = str(values["metric"]).removeprefix("metrics/")
        self._bar.set_postfix_str(f"{trial.name} {name} {values['value']:.3f}")

    def note(self, trial: Trial, text: str) -> None:
        """Say something about a trial."""
        self._write(f"{trial.name}: {text}")

    def ended(self, trial: Trial, *, error: str | None, how: str = "finished") -> None:
        """Say that a trial has ended, and how."""
        self._bar.update(self._n_epochs - self._done.get(trial.key, 0))
        self._done[trial.key] = self._n_epochs
        if error:
            self._write(f"{trial.name}: FAILED: {error}")
            return
        self._n_finished += 1
        self._bar.set_description(f"{self._name}: {self._n_finished}/{self._n_trials} trainings")
        self._write(f"{trial.name}: {how} ({self._n_finished}/{self._n_trials})")

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)
