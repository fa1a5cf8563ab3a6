"""Which trial is chosen, and which are surpassed by none: by hand, and by Optuna's own front on random values."""

import math

import numpy as np
import optuna
import pytest

from mlflow_yolo.studies.tuning.objective import Constraint, Goal
from mlflow_yolo.studies.tuning.outcome import TrialRow, outcome_of, pareto_front

SCORE, LATENCY = Goal("final/mAP50-95", "maximize"), Goal("latency_p95_ms", "minimize")


def row(number: int, score: float, latency: float = 10.0, **changed: object) -> TrialRow:
    """Return a finished trial with two values."""
    values = {SCORE.metric: score, LATENCY.metric: latency}
    return TrialRow(
        **{"number": number, "state": "finished", "params": {"freeze": number}, "values": values, **changed}
    )


def numbers(rows: tuple[TrialRow, ...]) -> list[int]:
    return [one.number for one in rows]


def test_the_best_trial_has_the_best_value_of_the_goal() -> None:
    rows = [row(0, 0.4), row(1, 0.6), row(2, 0.5)]

    assert outcome_of(rows, [SCORE]).best == rows[1]
    assert outcome_of(rows, [Goal(SCORE.metric, "minimize")]).best == rows[0]


def test_the_best_trial_challenges_the_default_and_where_that_is_the_best_the_best_other_one_does() -> None:
    default = row(0, 0.5, default=True)

    better = outcome_of([default, row(1, 0.6), row(2, 0.55)], [SCORE])
    worse = outcome_of([default, row(1, 0.3), row(2, 0.4), row(3, 0.45, feasible=False)], [SCORE])

    assert better.challenger == better.best == row(1, 0.6)
    assert worse.best == default
    assert worse.challenger == row(2, 0.4)
    assert outcome_of([default], [SCORE]).challenger is None
    assert outcome_of([], [SCORE]).challenger is None


def test_the_front_of_one_goal_is_the_best_trial() -> None:
    assert numbers(outcome_of([row(0, 0.4), row(1, 0.6), row(2, 0.6)], [SCORE]).front) == [1]


def test_of_two_equal_trials_the_earlier_one_is_chosen_in_whatever_order_they_come() -> None:
    rows = [row(2, 0.6), row(0, 0.6), row(1, 0.2)]

    outcome = outcome_of(rows, [SCORE])
    assert outcome.best is not None
    assert outcome.best.number == 0
    assert [one.number for one in outcome.rows] == [0, 1, 2]


def test_pruned_failed_and_infeasible_trials_are_never_chosen() -> None:
    rows = [row(0, 0.3), row(1, 0.9, state="pruned"), row(2, 0.8, state="failed"), row(3, 0.7, feasible=False)]

    outcome = outcome_of(rows, [SCORE], [Constraint(LATENCY.metric, "<=", 5.0)])
    assert outcome.best == rows[0]


def test_a_trial_without_the_value_of_a_goal_is_never_chosen() -> None:
    assert numbers(pareto_front([row(0, math.nan), row(1, 0.1), row(2, 0.9, values={})], [SCORE])) == [1]


def test_nothing_is_chosen_where_nothing_finished() -> None:
    outcome = outcome_of([row(0, 0.5, state="failed")], [SCORE, LATENCY])

    assert (outcome.best, outcome.front) == (None, ())
    assert outcome_of([], [SCORE]).best is None


def test_the_front_keeps_what_nothing_surpasses_in_every_goal() -> None:
    rows = [row(0, 0.5, 20.0), row(1, 0.6, 30.0), row(2, 0.5, 25.0), row(3, 0.4, 10.0), row(4, 0.3, 10.0)]

    outcome = outcome_of(rows, [SCORE, LATENCY])
    assert numbers(outcome.front) == [1, 0, 3]
    assert outcome.best == rows[1]


def test_trials_with_the_same_values_stand_beside_each_other_on_the_front() -> None:
    assert numbers(pareto_front([row(1, 0.5), row(0, 0.5)], [SCORE, LATENCY])) == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_the_one_optuna_finds(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 8, (40, 2)).astype(float)  # whole numbers: ties in each goal
    study = optuna.create_study(directions=["maximize", "minimize"])
    for pair in values:
        study.add_trial(optuna.trial.create_trial(values=list(pair)))

    ours = pareto_front([row(i, *pair) for i, pair in enumerate(values)], [SCORE, LATENCY])
    assert sorted(numbers(ours)) == sorted(trial.number for trial in study.best_trials)


def test_the_default_is_the_finished_trial_that_says_so() -> None:
    rows = [row(0, 0.3, default=True, state="failed"), row(1, 0.3)]

    assert outcome_of(rows, [SCORE]).default is None
    assert outcome_of([*rows, row(2, 0.2, default=True)], [SCORE]).default == row(2, 0.2, default=True)
