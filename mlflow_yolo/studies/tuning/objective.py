"""What a search is for, and what its trials must keep: goals and constraints over the metrics that a trial logs."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow_yolo import keys
from mlflow_yolo.exceptions import ArgumentError

Direction = Literal["maximize", "minimize"]

COSTS = ("latency_p50_ms", "latency_p95_ms", "size_mb")
"""Metrics of a trial's exported model, measured only where a goal or a constraint needs them."""

_SCORES = ("mAP50-95", "mAP50", "precision", "recall", "F1")
_BY_SIZE = ("AP-small", "AP-medium", "AP-large")
_LEARNING = ("overfit_gap", "epochs_to_90", "time_to_90_s")
_TRAINING = ("parameters_m", "train_s", "step_ms", "peak_memory_mb")
_SECOND_SETS = {"segment": "mask/", "pose": "pose/"}
_DIRECTIONS: dict[str, Direction] = {"min": "minimize", "max": "maximize"}
_CONSTRAINT = re.compile(r"(.+?)\s*(<=|>=|==|=<|=>|<|>|=)\s*(.*)")


@dataclass(frozen=True)
class Goal:
    """One thing to be as high, or as low, as possible.

    Attributes:
        metric: Key of the metric, as a trial's run logs it.
        direction: Optuna's word for which way is better.
    """

    metric: str
    direction: Direction


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial must keep.

    Attributes:
        metric: Key of the metric.
        sign: `<=` or `>=`.
        bound: The bound, in the metric's unit.
    """

    metric: str
    sign: str
    bound: float

    @property
    def text(self) -> str:
        """The constraint as it is written: `latency_p95_ms<=20`."""
        return f"{self.metric}{self.sign}{self.bound:g}"

    def __str__(self) -> str:
        return self.text

    def violation(self, values: Mapping[str, float]) -> float:
        """Return how far a trial is beyond the bound, in parts of the bound; 0 or less keeps it.

        In parts, because samplers add up the violations of several constraints: 5 ms and 5 MB are not the same.

        Args:
            values: The trial's metrics. Where the metric is missing or not a number nothing shows that the bound is
                kept: the violation is 1, as at twice the bound.
        """
        value = values.get(self.metric, math.nan)
        if not math.isfinite(value):
            return 1.0
        beyond = value - self.bound if self.sign == "<=" else self.bound - value
        return beyond / (abs(self.bound) or 1.0)


def parse_objective(text: str, known: Sequence[str]) -> tuple[Goal, ...]:
    """Return the goals that a comma-separated list of metrics names, in order.

    Args:
        text: Metrics, each with `:min` or `:max` where the usual way is not meant: `final/mAP50-95,size_mb`. Costs,
            times and gaps are to be low, everything else high.
        known: The metrics that a trial will have.

    Raises:
        ArgumentError: No metric, one that is never logged (the nearest one is named), or one twice.
    """
    goals = [_goal(word.strip(), known) for word in text.split(",") if word.strip()]
    if not goals:
        raise ArgumentError(f"objective={text!r} names no metric. Write for example objective=final/mAP50-95.")
    _refuse_twice("objective", [goal.metric for goal in goals])
    return tuple(goals)


def parse_constraints(text: str, known: Sequence[str]) -> tuple[Constraint, ...]:
    """Return the constraints of a comma-separated list, empty for an empty one: `latency_p95_ms<=20,size_mb<=6`.

    Raises:
        ArgumentError: A word that is no constraint, a metric that is never logged, a bound that is no number, or two
            bounds on the same side of one metric.
    """
    constraints = [_constraint(word.strip(), known) for word in text.split(",") if word.strip()]
    _refuse_twice("constraints", [f"{one.metric}{one.sign}" for one in constraints])
    return tuple(constraints)


def known_metrics(
    task: str, class_names: Sequence[str], *, has_test: bool, replayed: Mapping[str, object] | Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the keys of the metrics that a finished trial has; of sizes of objects, where there are any.

    Args:
        task: The model's task.
        class_names: Names of the classes.
        has_test: Whether the data have a test split.
        replayed: Dimensions that are looked up after training (`conf`, `iou`); with any there are `op/…` metrics.
    """
    names = _scores(task)
    found = [f"final/{name}" for name in names] + _per_class("final", task, class_names, keys.MAX_CLASSES_AS_METRICS)
    if has_test:
        found += [f"test/{name}" for name in names] + _per_class("test", task, class_names, keys.MAX_CLASSES_ON_TEST)
    if replayed and task != "classify":
        found += [f"op/{name}" for name in ("f1", "precision", "recall", "conf", "iou")]
    return (*found, *COSTS, *_TRAINING, *_LEARNING)


def needs_costs(goals: Sequence[Goal], constraints: Sequence[Constraint] = ()) -> bool:
    """Return whether latency or size must be measured: an export and a benchmark a trial."""
    metrics = [goal.metric for goal in goals] + [constraint.metric for constraint in constraints]
    return not set(metrics).isdisjoint(COSTS)


def usual_direction(metric: str) -> Direction:
    """Return which way of a metric is better: lower for costs, times and gaps, higher for everything else."""
    return "minimize" if metric in (*COSTS, *_TRAINING, *_LEARNING) else "maximize"


def _goal(word: str, known: Sequence[str]) -> Goal:
    metric, colon, way = word.rpartition(":")
    if not colon:
        metric = word
    elif way not in _DIRECTIONS:
        if word not in known:
            raise ArgumentError(f"objective={word}: {way!r} is no direction. Write {metric}:min or {metric}:max.")
        metric, colon = word, ""
    _check_known("objective", metric, known)
    return Goal(metric, _DIRECTIONS[way] if colon else usual_direction(metric))


def _constraint(word: str, known: Sequence[str]) -> Constraint:
    match = _CONSTRAINT.fullmatch(word)
    if not match or match[2] not in ("<=", ">="):
        metric = match[1] if match else word
        raise ArgumentError(f"constraints={word} is no bound. Write {metric}<=20 or {metric}>=0.5.")
    metric, sign, text = match.groups()
    _check_known("constraints", metric, known)
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ArgumentError(f"constraints={word}: {text!r} is not a number. Write for example {metric}{sign}20.")
    return Constraint(metric, sign, bound)


def _check_known(option: str, metric: str, known: Sequence[str]) -> None:
    if metric in known:
        return
    folded = {name.lower(): name for name in known}
    shortened = {name.lower().partition("/")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(metric.lower(), [*folded, *shortened], n=1)
    hint = f"Did you mean {(folded | shortened)[near[0]]}?" if near else "Use for example final/mAP50-95."
    raise ArgumentError(f"{option}: {metric} is never logged by these trials. {hint}")


def _refuse_twice(option: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(f"{option} names {name} twice. Write it once.")


def _scores(task: str) -> list[str]:
    if task == "classify":
        return ["top1", "top5"]
    second = [f"{_SECOND_SETS[task]}{name}" for name in _SCORES] if task in _SECOND_SETS else []
    return [*_SCORES, *second, *_BY_SIZE]


def _per_class(prefix: str, task: str, class_names: Sequence[str], most: int) -> list[str]:
    if task == "classify" or len(class_names) > most:
        return []
    return [f"{prefix}/AP50-95/{name}" for name in keys.class_segments(class_names)]
