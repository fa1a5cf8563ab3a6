"""What the children of a freeze ablation show together: a table whose words follow from its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.blocks import Freeze
from mlflow_yolo.detection.bootstrap import Difference
from mlflow_yolo.statistics.comparison import TestResult, Verdict, compare, mean_interval, paired_t
from mlflow_yolo.studies.measured import Measured, bootstrap_images


@dataclass(frozen=True)
class Child(Measured):
    """One finished training of a study.

    Attributes:
        freeze: Its configuration.
        seed: Its seed.
        directory: Where it lies.
        result: Its `result.json`.
    """

    freeze: Freeze
    seed: int
    directory: Path
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One configuration in the table.

    Attributes:
        freeze: The configuration.
        children: Its finished trainings, by seed.
        mean: Mean of the metric over seeds.
        low: Lower end of its 95 % interval over seeds; NaN for one seed.
        high: Upper end.
        seeds: Paired t test over seeds against the baseline; None for the baseline.
        images: Paired bootstrap over images against the baseline; None for the baseline, or without predictions.
        verdict: What may be said of it; None for the baseline.
    """

    freeze: Freeze
    children: Sequence[Child]
    mean: float
    low: float
    high: float
    seeds: TestResult | None = None
    images: Difference | None = None
    verdict: Verdict | None = None

    def average(self, name: str) -> float:
        """Return the mean over seeds of a value of `result.json`, NaN where no child has it."""
        values = [float(child.result[name]) for child in self.children if name in child.result]
        return float(np.mean(values)) if values else math.nan


@dataclass(frozen=True)
class FreezeAnalysis:
    """The comparison of all configurations.

    Attributes:
        metric: The metric that decides: `mAP50-95`, or `top1`.
        split: The split it is measured on: `test`, or `val` where there is no test split.
        n_images: Images of that split.
        n_resamples: Bootstrap resamples, 0 where there was no bootstrap.
        task: The task.
        names: Class names.
        rows: One per configuration, the baseline first.
    """

    metric: str
    split: str
    n_images: int
    n_resamples: int
    task: str
    names: Sequence[str]
    rows: Sequence[Row]

    @property
    def baseline(self) -> Row:
        """The row in which nothing is frozen."""
        return self.rows[0]

    @property
    def n_seeds(self) -> int:
        """Seeds that every configuration has."""
        return len(self.baseline.children)


def analyse(children: Sequence[Child], *, n_resamples: int = 1000) -> FreezeAnalysis | None:
    """Return the comparison, or None where no child of the baseline has a result.

    Only seeds that every configuration has finished are compared; a configuration without any is left out.

    Args:
        children: The finished children, in any order.
        n_resamples: Bootstrap resamples over the images.
    """
    groups = _paired(children)
    if not groups:
        return None
    first = next(iter(groups.values()))[0]
    split, metric = first.split, first.headline
    scores = {word: [child.value(split, metric) for child in group] for word, group in groups.items()}
    tests = {word: paired_t(values, scores["0"]) for word, values in scores.items() if word != "0"}
    images = bootstrap_images(groups, split, baseline="0", metric=metric, n_resamples=n_resamples)
    verdicts = compare(tests, images or None) if tests else {}
    rows = []
    for word, group in groups.items():
        mean, low, high = mean_interval(scores[word])
        rows.append(Row(group[0].freeze, group, mean, low, high, tests.get(word), images.get(word), verdicts.get(word)))
    return FreezeAnalysis(
        metric=metric,
        split=split,
        n_images=first.n_images(split),
        n_resamples=n_resamples if images else 0,
        task=str(first.result["task"]),
        names=list(first.result["names"]),
        rows=rows,
    )


def _paired(children: Sequence[Child]) -> dict[str, list[Child]]:
    """Return the children by configuration, baseline first, each with the same seeds in the same order."""
    by_word: dict[str, dict[int, Child]] = {"0": {}}
    for child in children:
        by_word.setdefault(child.freeze.word, {})[child.seed] = child
    present = {word: group for word, group in by_word.items() if group}
    if "0" not in present:
        return {}
    common = [seed for seed in present["0"] if all(seed in group for group in present.values())]
    return {word: [group[seed] for seed in sorted(common)] for word, group in present.items()} if common else {}
