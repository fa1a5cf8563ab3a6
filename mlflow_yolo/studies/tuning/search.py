"""Who proposes the next trial, who gives up one that falls behind, and when there are enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.studies.tuning.quiet import quiet
from mlflow_yolo.studies.tuning.space import Space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "gp", "nsga2", "random", "grid")
PRUNERS = ("asha", "hyperband", "median", "wilcoxon", "none")

BY_SEED = ("wilcoxon",)
"""Pruners that compare trials seed by seed; the others do after every epoch."""

SEEDS_FOR_WILCOXON = 4
"""Fewest seeds with which the test can stop a trial before its last one: worse on each of 3, p = 1/8."""

_WILCOXON_P = 0.2
_KEEP_ONE_IN = 3
_STARTUP = 5
_POPULATION = 10


def make_sampler(word: str, *, seed: int, space: Space, n_goals: int = 1) -> "BaseSampler":
    """Return the sampler that a word names.

    Args:
        word: `tpe`, `gp` (Gaussian process; slower, good up to some 200 trials), `nsga2` (for several goals), `random`,
            or `grid` (every point of a finite space once).
        seed: Seed of the search; a trial's own follows from its number, so that a search goes on after a restart.
        space: The space of the search.
        n_goals: Number of goals.

    Raises:
        ArgumentError: There is no such sampler, or the space has no finite grid.
    """
    _check_word("sampler", word, SAMPLERS)
    from optuna import samplers

    from mlflow_yolo.studies.tuning.samplers import FreshSampler, GridSampler, Make

    if word == "grid":
        _check_finite(space)
        return GridSampler(space, seed=seed)
    make: dict[str, Make] = {
        "tpe": lambda number: samplers.TPESampler(seed=number, n_startup_trials=_STARTUP),
        "gp": lambda number: samplers.GPSampler(
            seed=number, n_startup_trials=_STARTUP, warn_independent_sampling=False
        ),
        "nsga2": lambda number: samplers.NSGAIISampler(seed=number, population_size=_POPULATION),
        "random": lambda number: samplers.RandomSampler(seed=number),
    }
    return FreshSampler(space, make[word], seed=seed)


def make_pruner(word: str, *, epochs: int, n_seeds: int = 1, n_goals: int = 1) -> "BasePruner":
    """Return the pruner that a word names.

    Args:
        word: `asha` (a third goes on at each of a few epochs), `hyperband` (several such, of which some wait longer),
            `median` (worse than the median trial), `wilcoxon` (over seeds: worse than the best trial) or `none`.
        epochs: Epochs of a training, the longest where they differ.
        n_seeds: Seeds of a trial.
        n_goals: Number of goals.

    Raises:
        ArgumentError: There is no such pruner, or it cannot work with so many goals or so few seeds.
    """
    _check_word("pruner", word, PRUNERS)
    if n_goals > 1 and word != "none":
        raise ArgumentError(
            f"pruner={word} compares one value, and objective has {n_goals}. Use pruner=none, or one objective and "
            "constraints for the others."
        )
    if word == "wilcoxon" and n_seeds < SEEDS_FOR_WILCOXON:
        raise ArgumentError(
            f"pruner=wilcoxon compares trials seed by seed, and {n_seeds} cannot show a difference. "
            f"Use {SEEDS_FOR_WILCOXON} seeds or more, or pruner=asha."
        )
    from optuna import pruners

    first = max(1, epochs // _KEEP_ONE_IN**2)
    make: dict[str, Callable[[], BasePruner]] = {
        "asha": lambda: pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=_KEEP_ONE_IN),
        "hyperband": lambda: pruners.HyperbandPruner(
            min_resource=first, max_resource=max(epochs, first + 1), reduction_factor=_KEEP_ONE_IN
        ),
        "median": lambda: pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=first),
        "wilcoxon": lambda: pruners.WilcoxonPruner(p_threshold=_WILCOXON_P),
        "none": pruners.NopPruner,
    }
    with quiet():
        return make[word]()


@dataclass(frozen=True)
class Stopping:
    """When no further trial is asked for; those that run are not disturbed.

    Attributes:
        trials: Trials in all, those of earlier starts of the search included.
        hours: Hours in all, those of earlier starts included as far as their trials ended; None for no limit.
        patience: Trials in a row without an improvement; None for no limit.
        goals: What an improvement is one of.
        clock: The time, seconds since 1970.
        began: When this start began.
    """

    trials: int
    hours: float | None = None
    patience: int | None = None
    goals: Sequence[Goal] = ()
    clock: Callable[[], float] = time.time
    began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ArgumentError: One of them would end the search before its first trial.
        """
        for name, value in (("trials", self.trials), ("patience", self.patience)):
            if value is not None and value < 1:
                raise ArgumentError(f"{name}={value} tries nothing. Use {name}=1 or more.")
        if self.hours is not None and not self.hours > 0:
            raise ArgumentError(f"hours={self.hours:g} leaves no time. Use more than 0.")

    def reached(self, finished: Sequence["FrozenTrial"], *, n_asked: int) -> str:
        """Return why no further trial is asked for, empty while there is no reason.

        Args:
            finished: The trials that ended, in whatever way.
            n_asked: Trials asked for, those that run included.
        """
        if n_asked >= self.trials:
            return f"{self.trials} trials"
        if self.hours is not None and self._spent(finished) >= self.hours * 3600:
            return f"{self.hours:g} hours"
        if self.patience is not None and trials_since_improvement(finished, self.goals) >= self.patience:
            return f"no improvement in {self.patience} trials"
        return ""

    def _spent(self, finished: Sequence["FrozenTrial"]) -> float:
        """Return the seconds in which trials ran before this start, side by side counted once, and those since."""
        spans = [(one.datetime_start, one.datetime_complete) for one in finished]
        earlier = sorted((a.timestamp(), b.timestamp()) for a, b in spans if a and b and b.timestamp() < self.began)
        spent, until = 0.0, 0.0
        for start, end in earlier:
            spent += max(0.0, end - max(start, until))
            until = max(until, end)
        return spent + self.clock() - self.began


def trials_since_improvement(finished: Sequence["FrozenTrial"], goals: Sequence[Goal]) -> int:
    """Return how many trials ended after the last one that improved on all before it.

    A trial improves on others where it keeps the constraints, and none of the others is at least as good in every
    goal. Pruned trials and those that break a constraint improve nothing; failed ones do not count. 0 until there is a
    trial that others can be measured by.
    """
    from optuna.trial import TrialState

    ended = [trial for trial in finished if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    best: list[list[float]] = []
    since = 0
    for trial in sorted(ended, key=lambda one: (one.datetime_complete, one.number)):
        if trial.state == TrialState.COMPLETE and all(violation <= 0 for violation in trial.constraints.values()):
            costs = _costs(trial.values, goals)
            if not any(all(a <= b for a, b in zip(other, costs, strict=True)) for other in best):
                best.append(costs)
                since = 0
                continue
        since += bool(best)
    return since


def _costs(values: Sequence[float], goals: Sequence[Goal]) -> list[float]:
    """Return values that are the lower the better."""
    return [-value if goal.direction == "maximize" else value for value, goal in zip(values, goals, strict=True)]


def _check_word(option: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise ArgumentError(f"{option}={word} does not exist. Use {', '.join(known[:-1])} or {known[-1]}.")


def _check_finite(space: Space) -> None:
    from mlflow_yolo.studies.tuning.samplers import MOST_LISTED

    for dimension in space.dimensions:
        if dimension.values is None:
            raise ArgumentError(
                f"sampler=grid tries every point, and {dimension.text} has no end of them. "
                f"Write a step or choices, {dimension.name}={dimension.low:g}+{dimension.high:g}, or use sampler=tpe."
            )
    if (n_points := space.n_points or 0) > MOST_LISTED:
        raise ArgumentError(
            f"sampler=grid tries every point, and the space has {n_points}. Use larger steps, or sampler=tpe."
        )
