"""The chosen trial trained again on new seeds and set against the default: what the search's winner is worth.

The winner of a search looks better than it is, because it was chosen for looking good: its own seed and the val split
prove nothing. So both configurations are trained on seeds that the search has not seen and compared on the test split.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.detection.bootstrap import METRICS, Difference
from mlflow_yolo.statistics.comparison import TestResult, Verdict, compare, paired_t
from mlflow_yolo.studies.measured import Measured, bootstrap_images

_DEFAULT, _CHOSEN = "default", "chosen"


@dataclass(frozen=True)
class Retrained(Measured):
    """One training of a configuration on a new seed.

    Attributes:
        seed: Its seed.
        directory: Where it lies.
        result: Its `result.json`.
    """

    seed: int
    directory: Path
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Confirmation:
    """The chosen trial against the default, on seeds that the search has not seen.

    Attributes:
        metric: What is compared: `mAP50-95`, `mAP50` or `top1`.
        split: Where it was measured: `test`, or `val` where there is no test split.
        n_images: Images of that split.
        seeds: Seeds that both were trained on.
        default: The default's value for each of them.
        best: The chosen trial's, in the same order.
        over_seeds: Paired t test over the seeds.
        over_images: Paired bootstrap over the images, None without predictions to resample.
        verdict: What may be said.
    """

    metric: str
    split: str
    n_images: int
    seeds: tuple[int, ...]
    default: tuple[float, ...]
    best: tuple[float, ...]
    over_seeds: TestResult
    over_images: Difference | None
    verdict: Verdict

    @property
    def difference(self) -> float:
        """The mean over seeds of chosen minus default."""
        return self.over_seeds.difference

    @property
    def interval(self) -> tuple[float, float, str]:
        """The ends of its 95 % interval and what they are over: `images`, else `seeds`; NaN for a single seed."""
        if self.over_images:
            return self.over_images.low, self.over_images.high, "images"
        return self.over_seeds.low, self.over_seeds.high, "seeds"

    def sentence(self, name: str) -> str:
        """Return what was shown, in one sentence.

        Args:
            name: How the chosen trial is called: `trial 5`.
        """
        means = f"{self.metric} {np.mean(self.best):.3f} against {np.mean(self.default):.3f}"
        return (
            f"Trained again on seed{'s' if len(self.seeds) > 1 else ''} {_listed(self.seeds)}, {name} "
            f"{self._finding()} on the {self.split} split ({self.n_images} images): {means}, {self.difference:+.3f}"
            f"{self._interval_text()}{self._caveat()}."
        )

    def _finding(self) -> str:
        """Return `is better than the default (images)` or `shows no difference to the default (n=2)`."""
        if not self.verdict.sources:
            return f"shows no difference to the default (n={self.verdict.n_seeds})"
        return f"is {self.verdict.outcome} than the default, shown over {' and '.join(self.verdict.sources)},"

    def _interval_text(self) -> str:
        low, high, source = self.interval
        return "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}] (95 % over {source})"

    def _caveat(self) -> str:
        return "" if self.split == "test" else f"; the search chose on {self.split} too, which flatters the chosen one"


def confirm(
    default: Sequence[Retrained], best: Sequence[Retrained], *, metric: str | None = None, n_resamples: int = 1000
) -> Confirmation | None:
    """Return the comparison of the chosen trial with the default, or None where no seed has a value of both.

    Args:
        default: Trainings of the default configuration on new seeds, in any order.
        best: Trainings of the chosen one.
        metric: `mAP50-95` or `mAP50`; any other, or None, compares what the task is judged by.
        n_resamples: Bootstrap resamples over the images.
    """
    if not default or not best:
        return None
    split = default[0].split
    name = metric if metric in METRICS and default[0].headline in METRICS else default[0].headline
    pairs = _pairs(default, best, lambda child: child.value(split, name))
    if not pairs:
        return None
    groups = {_DEFAULT: [first for first, _ in pairs], _CHOSEN: [second for _, second in pairs]}
    values = {key: tuple(child.value(split, name) for child in group) for key, group in groups.items()}
    over_seeds = paired_t(values[_CHOSEN], values[_DEFAULT])
    images = bootstrap_images(groups, split, baseline=_DEFAULT, metric=name, n_resamples=n_resamples)
    return Confirmation(
        metric=name,
        split=split,
        n_images=pairs[0][0].n_images(split),
        seeds=tuple(child.seed for child in groups[_DEFAULT]),
        default=values[_DEFAULT],
        best=values[_CHOSEN],
        over_seeds=over_seeds,
        over_images=images.get(_CHOSEN),
        verdict=compare({_CHOSEN: over_seeds}, images or None)[_CHOSEN],
    )


def _pairs(
    default: Sequence[Retrained], best: Sequence[Retrained], value: Callable[[Retrained], float]
) -> list[tuple[Retrained, Retrained]]:
    """Return the trainings of the same seed, by seed, of which both have a finite value."""
    by_seed = {child.seed: child for child in best}
    found = [(child, by_seed[child.seed]) for child in default if child.seed in by_seed]
    finite = [pair for pair in found if all(math.isfinite(value(child)) for child in pair)]
    return sorted(finite, key=lambda pair: pair[0].seed)


def _listed(seeds: Sequence[int]) -> str:
    words = [str(seed) for seed in seeds]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
