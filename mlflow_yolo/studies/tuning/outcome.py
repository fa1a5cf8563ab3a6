"""What a search ends with: its trials, which of them is chosen, and which cannot be surpassed in every goal at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlflow_yolo.studies.tuning.confirmation import Confirmation
from mlflow_yolo.studies.tuning.objective import Constraint, Goal

State = Literal["finished", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRow:
    """One trial of a search, as it ended.

    Attributes:
        number: Its number in the search, from 0.
        state: `finished`; `pruned`, stopped because it fell behind; or `failed`.
        params: What was tried, by dimension.
        values: What was measured, by metric key; of a pruned trial what was known when it was stopped.
        attempts: How often it was begun, those included that an interruption of the study ended.
        feasible: Whether it keeps every constraint; a search without constraints has only feasible trials.
        seconds: How long its last attempt took.
        run_id: Its run; None where no server knows it yet.
        directory: The folder of its last attempt, None where there is none.
        default: Whether it has the values that one starts with where nothing is searched.
        epochs_done: Epochs it was trained for.
        reason: Why it was pruned or failed, empty otherwise.
    """

    number: int
    state: State
    params: Mapping[str, int | float | str]
    values: Mapping[str, float]
    attempts: int = 1
    feasible: bool = True
    seconds: float = math.nan
    run_id: str | None = None
    directory: Path | None = None
    default: bool = False
    epochs_done: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """How people call it: `trial 5`."""
        return f"trial {self.number}"

    def value(self, metric: str) -> float:
        """Return one of its values, NaN where it was not measured."""
        return float(self.values.get(metric, math.nan))


@dataclass(frozen=True)
class TuneOutcome:
    """What a search ends with.

    Attributes:
        rows: Its trials, by number.
        goals: What was searched for, the first one first.
        constraints: What a trial must keep.
        best: The trial with the best value of the first goal that keeps the constraints; None where there is none.
        front: The trials that none surpasses in every goal, by the value of the first goal, best first; of a search
            with one goal the best one alone.
        confirmation: The challenger trained again on new seeds and set against the default, None where that was not
            done.
        importance: How much of the spread of the first goal each dimension accounts for, in [0, 1]; empty where too
            few trials say nothing.
    """

    rows: Sequence[TrialRow]
    goals: Sequence[Goal]
    constraints: Sequence[Constraint] = ()
    best: TrialRow | None = None
    front: tuple[TrialRow, ...] = ()
    confirmation: Confirmation | None = None
    importance: Mapping[str, float] = field(default_factory=dict)

    @property
    def default(self) -> TrialRow | None:
        """The finished trial with the values one starts with, None where there is none."""
        return next((row for row in self.rows if row.default and row.state == "finished"), None)

    @property
    def challenger(self) -> TrialRow | None:
        """The trial that is set against the default: the best one, or where that is the default the best other one."""
        if self.best is None or not self.best.default:
            return self.best
        others = pareto_front([row for row in self.rows if not row.default], self.goals)
        return others[0] if others else None

    def in_state(self, state: State) -> list[TrialRow]:
        """Return the trials that ended so."""
        return [row for row in self.rows if row.state == state]


def outcome_of(
    rows: Sequence[TrialRow],
    goals: Sequence[Goal],
    constraints: Sequence[Constraint] = (),
    *,
    confirmation: Confirmation | None = None,
    importance: Mapping[str, float] | None = None,
) -> TuneOutcome:
    """Return the outcome of a search, its best trial and its front chosen from its rows.

    Args:
        rows: All trials that ended.
        goals: One or more.
        constraints: What the rows' `feasible` is about.
        confirmation: See `TuneOutcome`, like `importance`.
        importance: By dimension.
    """
    ordered = sorted(rows, key=lambda row: row.number)
    front = pareto_front(ordered, goals)
    return TuneOutcome(
        rows=ordered,
        goals=tuple(goals),
        constraints=tuple(constraints),
        best=front[0] if front else None,
        front=front if len(goals) > 1 else front[:1],
        confirmation=confirmation,
        importance=dict(importance or {}),
    )


def pareto_front(rows: Sequence[TrialRow], goals: Sequence[Goal]) -> tuple[TrialRow, ...]:
    """Return the finished, feasible trials that no other one surpasses, by the first goal, best first.

    One trial surpasses another where it is at least as good in every goal and better in one. Trials with the same
    values stand beside each other, the earlier one first; a trial without a value of some goal takes no part.
    """
    points = {
        row.number: [_cost(row, goal) for goal in goals] for row in rows if row.state == "finished" and row.feasible
    }
    points = {number: costs for number, costs in points.items() if not any(map(math.isnan, costs))}
    kept = [number for number, costs in points.items() if not any(_surpasses(o, costs) for o in points.values())]
    by_number = {row.number: row for row in rows}
    return tuple(by_number[number] for number in sorted(kept, key=lambda number: (points[number], number)))


def _cost(row: TrialRow, goal: Goal) -> float:
    """Return a value that is the lower the better."""
    value = row.value(goal.metric)
    return -value if goal.direction == "maximize" else value


def _surpasses(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
