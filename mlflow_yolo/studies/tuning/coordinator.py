"""The one owner of a study's ask and tell: what is tried next, what came out of it, and what a kill left in between.

An Optuna trial is one configuration, an attempt one try at it in a worker. A trial whose worker is lost is tried again
under its own number, and one whose driver is lost goes on as the next start finds it: no configuration is counted
twice, and none is lost. What an attempt came to stands in its `result.json` and nowhere else; a trial is told after
that file is read, and a start that finds a result that was not told yet tells it.
"""

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mlflow_yolo.studies.driver import Watcher, reason
from mlflow_yolo.studies.executors import Executor, Job
from mlflow_yolo.studies.study import Study, Trial, read_result
from mlflow_yolo.studies.tuning.objective import Constraint, Goal
from mlflow_yolo.studies.tuning.search import Stopping

ATTEMPTS = 3
"""Tries at a trial whose workers are lost."""

DEFAULT = "mlflow_yolo.default"
"""User attribute of the trial with the known-good values."""

SAME_AS = "mlflow_yolo.same_as"
"""User attribute of a suggestion that was made before: the number of the trial that has the answer."""

REASON = "mlflow_yolo.reason"
"""User attribute: why a trial has no value."""

_LOST = "lost.json"
_SUGGESTIONS = 30
"""Suggestions in a row that were all made before, after which a space counts as exhausted."""

Describe = Callable[[int, Mapping[str, Any]], Trial]
"""Makes our trial of a number and the suggested values."""


@dataclass(frozen=True)
class Rules:
    """How a study is decided.

    Attributes:
        distributions: What is suggested, by dimension.
        goals: What a trial's values are, in the order of the study's directions.
        constraints: What has to hold of a trial.
        stopping: When no further trial is asked for.
        reports: Whether accuracy during the training stands for the goal, so that a pruner can judge by it.
        by_seed: Report it after every seed (Wilcoxon) instead of after every epoch.
        spares: Do not train a trial whose costs break a constraint before it begins.
    """

    distributions: Mapping[str, BaseDistribution]
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    stopping: Stopping
    reports: bool = True
    by_seed: bool = False
    spares: bool = True


@dataclass
class _Running:
    """A trial that was asked for and not told yet."""

    asked: optuna.Trial
    ours: Trial
    attempt: Path | None = None
    error: str = ""
    last_step: int = -1


class Coordinator:
    """Asks for trials, hears their workers and tells what came out.

    Args:
        search: The Optuna study; no other process may ask or tell.
        study: Its folder, held by this process.
        rules: How it is decided.
        describe: Makes our trial of a number and the suggested values.
        child_run: Arguments of `open_run` for an attempt at a trial, from the trial and the run's tags.
        settle: Closes the run of an attempt whose worker is gone.
    """

    def __init__(
        self,
        search: optuna.Study,
        study: Study,
        *,
        rules: Rules,
        describe: Describe,
        child_run: Callable[[Trial, Mapping[str, str]], Mapping[str, Any]],
        settle: Callable[[Path], None],
    ) -> None:
        self._search = search
        self._study = study
        self._rules = rules
        self._describe = describe
        self._child_run = child_run
        self._settle = settle
        self._running: dict[str, _Running] = {}
        self._waiting: deque[_Running] = deque()
        self._known: dict[str, int] = {}
        self._n_asked = 0
        self._exhausted = False
        self._recover()

    @property
    def exhausted(self) -> bool:
        """Whether the space holds nothing that was not tried."""
        return self._exhausted

    def run(self, executor: Executor, watcher: Watcher) -> None:
        """Run trials until the rules say stop and the last one has ended."""
        for event in executor.run(self.next_job):
            one = self._running[event.key]
            if event.kind == "ended":
                self._ended(one, event.values["exit_code"], watcher)
            elif message := self._heard(one, event.values, watcher):
                executor.tell(event.key, message)

    def next_job(self) -> Job | None:
        """Return the next attempt to start; None where there is none for now."""
        one = self._waiting.popleft() if self._waiting else self._ask()
        if one is None:
            return None
        number = len(self._study.attempts(one.ours)) + 1
        tags = {
            "optuna.study": self._search.study_name,
            "optuna.number": str(one.asked.number),
            "optuna.attempt": str(number),
        }
        file = self._study.new_attempt(one.ours, self._child_run(one.ours, tags))
        one.attempt, one.error = file.parent, ""
        self._running[one.ours.key] = one
        return Job(one.ours.key, file)

    def _recover(self) -> None:
        """Take up what an earlier driver left: count what is told, tell what has a result, queue what has none."""
        for frozen in self._search.get_trials(deepcopy=False):
            if SAME_AS in frozen.user_attrs and not frozen.state.is_finished():
                self._search.tell(frozen.number, state=TrialState.FAIL)
            if SAME_AS in frozen.user_attrs or frozen.state == TrialState.WAITING:
                continue
            self._n_asked += 1
            if frozen.state.is_finished():
                self._known.setdefault(_identity(frozen.params), frozen.number)
                continue
            # Not public, and the only way to a running trial: `Study.ask` makes a new one.
            asked = optuna.Trial(self._search, frozen._trial_id)
            one = self._described(asked)
            self._known.setdefault(_identity(asked.params), asked.number)
            one.last_step = max(frozen.intermediate_values, default=-1)
            attempts = self._study.attempts(one.ours)
            one.attempt = next((path for path in reversed(attempts) if read_result(path)), None)
            if one.attempt is None or self._tell_result(one) is None:
                self._retry_or_fail(one)

    def _ask(self) -> _Running | None:
        """Return a trial that was not tried before; None where the rules say stop or there is none."""
        if self._exhausted or self._rules.stopping.reached(self._finished(), n_asked=self._n_asked):
            return None
        for _ in range(_SUGGESTIONS):
            one = self._described(self._search.ask())
            identity = _identity(one.asked.params)
            if (earlier := self._known.setdefault(identity, one.asked.number)) == one.asked.number:
                self._n_asked += 1
                return one
            # The answer is there, or on its way: training the same again would give the same.
            one.asked.set_user_attr(SAME_AS, earlier)
            self._search.tell(one.asked, state=TrialState.FAIL)
        self._exhausted = True
        return None

    def _described(self, asked: optuna.Trial) -> _Running:
        """Return a trial with all its values; those that were suggested before a kill stay as they are."""
        for name, distribution in self._rules.distributions.items():
            _suggest(asked, name, distribution)
        return _Running(asked, self._describe(asked.number, asked.params))

    def _finished(self) -> list[FrozenTrial]:
        trials = self._search.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished() and SAME_AS not in trial.user_attrs]

    def _heard(self, one: _Running, values: Mapping[str, Any], watcher: Watcher) -> dict[str, str] | None:
        """Take note of what a worker said; return what to answer."""
        if "error" in values:
            one.error = values["error"]
        elif "note" in values:
            watcher.note(one.ours, values["note"])
        elif "measured" in values:
            broken = self._constrain(one.asked, values["measured"], known_only=True)
            if broken and self._rules.spares:
                watcher.note(one.ours, f"not trained on: {broken}")
                one.asked.set_user_attr(REASON, broken)
                return {"stop": "pruned"}
        elif "seed" in values:
            if self._rules.by_seed:
                value = values["values"].get(self._rules.goals[0].metric, values["value"])
                return self._report(one, value, values["seed"])
        else:
            watcher.epoch(one.ours, values)
            if not self._rules.by_seed:
                is_last = values["epoch"] >= values["epochs"]
                return self._report(one, values["value"], int(values["epoch"]) - 1, is_last=is_last)
        return None

    def _report(self, one: _Running, value: float, step: int, *, is_last: bool = False) -> dict[str, str] | None:
        """Report an intermediate value; return the order to stop where the pruner says so and there is a rest."""
        if not self._rules.reports or step <= one.last_step:
            return None  # an attempt after a kill goes through the same epochs again
        one.asked.report(value, step)
        one.last_step = step
        if is_last or not one.asked.should_prune():
            return None
        one.asked.set_user_attr(REASON, f"pruned at step {step + 1}")
        return {"stop": "pruned"}

    def _ended(self, one: _Running, exit_code: int, watcher: Watcher) -> None:
        """Tell what an attempt came to, or queue the trial again."""
        assert one.attempt is not None
        del self._running[one.ours.key]
        self._settle(one.attempt)
        state = self._tell_result(one)
        if state is not None:
            how = "pruned" if state == TrialState.PRUNED else "finished"
            watcher.ended(one.ours, error=one.error if state == TrialState.FAIL else None, how=how)
            return
        error = one.error or reason(self._study, one.ours, exit_code)
        (one.attempt / _LOST).write_text(json.dumps({"exit_code": exit_code, "reason": error}))
        if self._retry_or_fail(one, error):
            watcher.note(one.ours, f"{error}; it is tried again")
        else:
            watcher.ended(one.ours, error=f"{error}; given up after {ATTEMPTS} attempts")

    def _tell_result(self, one: _Running) -> TrialState | None:
        """Tell Optuna what the result file of an attempt says; return None where it says nothing, or to try again."""
        assert one.attempt is not None
        result = read_result(one.attempt)
        if result is None or (result["status"] == "failed" and result.get("retry")):
            return None
        if result["status"] == "failed":
            return self._fail(one, result["error"])
        values = result.get("values", {})
        if result["status"] == "pruned":
            self._constrain(one.asked, values, known_only=True)
            self._search.tell(one.asked, state=TrialState.PRUNED)
            return TrialState.PRUNED
        if missing := [goal.metric for goal in self._rules.goals if not _is_number(values.get(goal.metric))]:
            return self._fail(one, f"{missing[0]} was not measured")
        self._constrain(one.asked, values)
        self._search.tell(one.asked, [float(values[goal.metric]) for goal in self._rules.goals])
        return TrialState.COMPLETE

    def _constrain(self, asked: optuna.Trial, values: Mapping[str, float], *, known_only: bool = False) -> str:
        """Set the constraints that `values` decide, all of them unless `known_only`; return the first broken one."""
        broken = ""
        for constraint in self._rules.constraints:
            if known_only and constraint.metric not in values:
                continue
            violation = constraint.violation(values)
            if constraint.text not in asked.constraints:
                asked.set_constraint(constraint.text, violation)
            if violation > 0 and not broken:
                broken = f"{constraint.metric}={values.get(constraint.metric, float('nan')):g} breaks {constraint.text}"
        return broken

    def _retry_or_fail(self, one: _Running, error: str = "") -> bool:
        """Queue a trial again unless its attempts are used up; return whether it is queued.

        Only attempts whose own worker was lost count: an interruption of the study is not the trial's fault.
        """
        n_lost = sum((attempt / _LOST).exists() for attempt in self._study.attempts(one.ours))
        if n_lost < ATTEMPTS:
            self._waiting.append(one)
            return True
        self._fail(one, error or f"lost {n_lost} times")
        return False

    def _fail(self, one: _Running, error: str) -> TrialState:
        one.error = error
        one.asked.set_user_attr(REASON, error)
        self._search.tell(one.asked, state=TrialState.FAIL)
        return TrialState.FAIL


def _is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _suggest(asked: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    """Let a trial have a value for one dimension, the one it has already if it has."""
    if isinstance(distribution, CategoricalDistribution):
        asked.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        asked.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    else:
        assert isinstance(distribution, FloatDistribution)
        asked.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _identity(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
