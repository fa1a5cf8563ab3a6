"""At which optimizer steps statistics are collected: often enough to see something, seldom enough not to be felt."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAMPLES_PER_EPOCH = 20
FIRST_STEPS = 3
"""The first steps of a training are always sampled: that is where it blows up."""

BUDGET = 0.0035
"""Share of the steps' time that collecting may take. Callbacks and the activations of a validation take about as much
again in an epoch of a hundred steps of YOLO11n: together they stay within one per cent."""


def sampling_interval(steps_per_epoch: int, *, samples: int = SAMPLES_PER_EPOCH) -> int:
    """Return every how many optimizer steps to sample, so that an epoch has about `samples` of them; at least 1."""
    return max(1, steps_per_epoch // samples)


class Sampling:
    """Says which steps to sample, and keeps the time that collecting takes within its share of the training's."""

    def __init__(
        self, steps_per_epoch: int | None, *, every_n_steps: int | None, budget: float, clock: Callable[[], float]
    ) -> None:
        """Start with nothing spent.

        Args:
            steps_per_epoch: Optimizer steps in an epoch, None when unknown.
            every_n_steps: Sample just every so many steps of an epoch; None for about 20 samples an epoch within the
                budget, and the first three steps of the training and the last of every epoch in any case.
            budget: The share of the time between an epoch's start and its last step that collecting may take.
            clock: Seconds, from anywhere.
        """
        self._every = every_n_steps
        self._steps_per_epoch = steps_per_epoch
        self._budget = budget
        self._clock = clock
        self._first_steps_left = FIRST_STEPS
        self._spent = 0.0
        self._elapsed = 0.0
        self._sample_cost = 0.0
        self._is_sample = False
        self._step_cost = 0.0
        self._latest = self._began = clock()

    def start_epoch(self, steps_per_epoch: int | None = None) -> None:
        """Go on counting, with another number of steps if one is given; since the last step there was no training."""
        self._steps_per_epoch = steps_per_epoch or self._steps_per_epoch
        self._elapsed += self._latest - self._began
        self._latest = self._began = self._clock()

    def is_due(self, step: int) -> bool:
        """Return whether to sample this step of the epoch; to be asked once a step, within `spending`."""
        if self._is_sample:
            self._sample_cost = self._step_cost
        self._step_cost = 0.0
        self._is_sample = self._decide(step)
        return self._is_sample

    @contextmanager
    def spending(self, *, is_step: bool = True) -> Iterator[None]:
        """Count the time within as spent on collecting, at a step of the training or after its end."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            self._spent += ended - began
            if is_step:
                self._latest = ended
                self._step_cost += ended - began

    def _decide(self, step: int) -> bool:
        if self._every is not None:
            return step % self._every == 0
        self._first_steps_left -= 1
        n_steps = self._steps_per_epoch
        if self._first_steps_left >= 0 or step + 1 == n_steps:
            return True
        elapsed = self._elapsed + self._clock() - self._began
        return step % sampling_interval(n_steps or 1) == 0 and self._spent + self._sample_cost <= self._budget * elapsed
