"""What the parent run shows while its search goes on: the best value so far, trial by trial."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from mlflow_yolo.studies.driver import Watcher
from mlflow_yolo.studies.study import Trial
from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.tracking.run import TrackedRun


class Live:
    """A watcher that also logs the best value of the first goal into the parent run.

    Args:
        watcher: Who is told everything.
        parent: The open parent run.
        search: The Optuna study.
        goals: What is searched for.
    """

    def __init__(self, watcher: Watcher, parent: TrackedRun, search: optuna.Study, goals: tuple[Goal, ...]) -> None:
        self._watcher, self._parent, self._search, self._goal = watcher, parent, search, goals[0]

    def epoch(self, trial: Trial, values: Mapping[str, Any]) -> None:
        """Pass on that an epoch of a trial has ended."""
        self._watcher.epoch(trial, values)

    def note(self, trial: Trial, text: str) -> None:
        """Pass on something about a trial."""
        self._watcher.note(trial, text)

    def ended(self, trial: Trial, *, error: str | None, how: str = "finished") -> None:
        """Pass on that a trial has ended, and log the best value so far at the number of trials that have."""
        self._watcher.ended(trial, error=error, how=how)
        trials = self._search.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        feasible = [one.values[0] for one in trials if all(value <= 0 for value in one.constraints.values())]
        if feasible:
            best = max(feasible) if self._goal.direction == "maximize" else min(feasible)
            self._parent.log_metrics({f"best/{self._goal.metric}": best}, step=len(trials))
