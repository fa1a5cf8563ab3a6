"""Optuna's samplers so that a search can be stopped and begun again, and never proposes what it has tried.

Every proposal is drawn by a sampler made for it, seeded from the search's seed and the trial's number: what trial 12
is depends on the trials before it and not on how often the driver was killed in between. (A sampler that lives as long
as its driver draws the same numbers again after every start.)
"""

import hashlib
import itertools
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler

from mlflow_yolo.studies.tuning.dimensions import Dimension, Value
from mlflow_yolo.studies.tuning.quiet import quiet
from mlflow_yolo.studies.tuning.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MOST_LISTED = 10_000
"""Points of a space up to which those that were not tried are listed; in a larger one, drawing again finds one."""

_DRAWS = 100

Make = Callable[[int], BaseSampler]
"""Makes a sampler from a seed."""


class FreshSampler(BaseSampler):
    """Proposes points that no earlier trial of the study has, whatever the sampler inside says.

    Args:
        space: The space of the search.
        make: Makes the sampler inside.
        seed: Seed of the search.
    """

    def __init__(self, space: Space, make: Make, *, seed: int) -> None:
        self._space = space
        self._make = make
        self._seed = seed
        self._distributions = space.distributions()

    def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> "dict[str, BaseDistribution]":
        """Return the whole space: the values of a trial are proposed together, so that the point can be compared."""
        return {} if "fixed_params" in trial.system_attrs else self._distributions

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """Return the values of a trial; those that it has already stay."""
        if not search_space:
            return {}
        with quiet():
            point = {**self._proposal(study, trial), **trial.params}
        tried = points_tried(study, self._space, but=trial.number)
        return point if self._space.key(point) not in tried else self._other(study, trial, tried) or point

    def sample_independent(
        self, study: "Study", trial: "FrozenTrial", param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """Return one value on its own, for an enqueued trial that names only some."""
        sampler = RandomSampler(seed=seed_of(self._seed, trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Do nothing: the seed of a trial is its number's."""

    def _proposal(self, study: "Study", trial: "FrozenTrial") -> dict[str, Any]:
        """Return the point that the sampler inside proposes."""
        sampler = self._make(seed_of(self._seed, trial.number))
        sampler.before_trial(study, trial)
        point = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        for dimension in self._space.dimensions:
            name = dimension.name
            if dimension.is_fixed:
                point[name] = (dimension.values or ())[0]
            elif name not in point:
                point[name] = sampler.sample_independent(study, trial, name, self._distributions[name])
        return {name: point[name] for name in self._distributions}

    def _other(self, study: "Study", trial: "FrozenTrial", tried: set[str]) -> dict[str, Any] | None:
        """Return any point that was not tried, None where there is none."""
        seed = seed_of(self._seed, trial.number)
        if (n_points := self._space.n_points) is not None and n_points <= MOST_LISTED:
            left = [one for one in grid(self._space.dimensions) if self._space.key(one) not in tried]
            left = [one for one in left if trial.params.items() <= one.items()]
            return random.Random(seed).choice(left) if left else None
        sampler = RandomSampler(seed=seed)
        for _ in range(_DRAWS):
            drawn = {
                name: sampler.sample_independent(study, trial, name, distribution)
                for name, distribution in self._distributions.items()
            } | trial.params
            if self._space.key(drawn) not in tried:
                return drawn
        return None


class GridSampler(FreshSampler):
    """Proposes every point of a finite space once, in an order that the seed decides.

    Optuna's own cannot be told from outside `Study.optimize`: after the last point it stops a loop that is not there.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(space, lambda seed: RandomSampler(seed=seed), seed=seed)
        self._points = grid(space.dimensions)
        random.Random(seed).shuffle(self._points)

    def _proposal(self, study: "Study", trial: "FrozenTrial") -> dict[str, Any]:
        tried = points_tried(study, self._space, but=trial.number)
        return next((point for point in self._points if self._space.key(point) not in tried), self._points[0])


def grid(dimensions: Sequence[Dimension]) -> list[dict[str, Value]]:
    """Return every point of a finite space, the last dimension varying fastest."""
    values = [dimension.values or () for dimension in dimensions]
    return [dict(zip((one.name for one in dimensions), point, strict=True)) for point in itertools.product(*values)]


def points_tried(study: "Study", space: Space, *, but: int = -1) -> set[str]:
    """Return the keys of the points of all trials but for the one of a number."""
    # From the storage: under Hyperband the samplers are given a study that shows the trials of one bracket only.
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return {space.key(trial.params) for trial in trials if trial.number != but}


def seed_of(seed: int, number: int, name: str = "") -> int:
    """Return a seed of 32 bits that belongs to one trial, unrelated to those of its neighbours."""
    digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
