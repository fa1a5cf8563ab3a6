from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.dimensions import Dimension
from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.studies.tuning.search import (
    PRUNERS,
    SAMPLERS,
    SEEDS_FOR_WILCOXON,
    Stopping,
    make_pruner,
    make_sampler,
    trials_since_improvement,
)
from mlflow_yolo.studies.tuning.space import Space

SPACE = Space((Dimension("freeze", "int", 0, 11), Dimension("lr0", "float", 1e-4, 1e-1, log=True)))
UP, DOWN = Goal("final/mAP50-95", "maximize"), Goal("size_mb", "minimize")
NOON = datetime(2026, 1, 1, 12)


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def trial(
    *values: float, state: str = "COMPLETE", violation: float | None = None, hours: tuple = (0.0, 1.0)
) -> FrozenTrial:
    attributes = {} if violation is None else {"constraints:c": violation}
    one = create_trial(state=TrialState[state], values=list(values) or None, system_attrs=attributes)
    one.datetime_start, one.datetime_complete = (NOON + timedelta(hours=hour) for hour in hours)
    return one


def in_order(*trials: FrozenTrial) -> list[FrozenTrial]:
    for number, one in enumerate(trials):
        one.number = number
    return list(trials)


@pytest.mark.parametrize("word", [word for word in SAMPLERS if word != "grid"])
@pytest.mark.parametrize("n_goals", [1, 2])
def test_every_sampler_proposes_for_one_goal_and_for_several(word: str, n_goals: int) -> None:
    study = optuna.create_study(
        directions=["maximize"] * n_goals, sampler=make_sampler(word, seed=0, space=SPACE, n_goals=n_goals)
    )
    for _ in range(3):
        asked = study.ask(SPACE.distributions())
        assert SPACE.contains(asked.params)
        study.tell(asked, [0.5] * n_goals)


@pytest.mark.parametrize("word", [word for word in PRUNERS if word != "wilcoxon"])
def test_every_pruner_hears_epochs(word: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(word, epochs=9))
    for number in range(8):
        asked = study.ask()
        for step in range(9):
            asked.report(0.1 * number, step)
            assert asked.should_prune() in (True, False)
        study.tell(asked, 0.1 * number)


def pruned_at(word: str, curves: list[list[float]], *, epochs: int) -> list[int | None]:
    """Return for each curve, one after another, the step after which it was given up."""
    study = optuna.create_study(
        study_name="s", direction="maximize", pruner=make_pruner(word, epochs=epochs, n_seeds=9)
    )
    ends: list[int | None] = []
    for curve in curves:
        asked = study.ask()
        for step, value in enumerate(curve):
            asked.report(value, step)
            if asked.should_prune():
                study.tell(asked, state=TrialState.PRUNED)
                ends.append(step)
                break
        else:
            study.tell(asked, curve[-1])
            ends.append(None)
    return ends


def test_asha_keeps_the_best_third_at_a_ninth_and_a_third_of_the_epochs() -> None:
    good, bad, late = [0.5] * 27, [0.1] * 27, [0.6] * 9 + [0.2] * 18
    # A rung is reached at step 3 (a ninth of 27) and again at step 9.
    assert pruned_at("asha", [good, bad, late], epochs=27) == [None, 3, 9]


def test_a_pruner_waits_for_more_than_the_first_epoch_of_a_long_training() -> None:
    assert pruned_at("asha", [[0.5] * 90, [0.1] * 90], epochs=90) == [None, 10]
    assert pruned_at("median", [[0.5] * 18] * 5 + [[0.1] * 18], epochs=18) == [None] * 5 + [2]


def test_median_lets_five_trials_finish_first() -> None:
    assert pruned_at("median", [[0.5] * 3] * 4 + [[0.1] * 3] * 2, epochs=3) == [None] * 5 + [1]


def test_wilcoxon_gives_up_what_loses_on_three_seeds() -> None:
    best, worse, mixed = [0.5, 0.6, 0.7, 0.6], [0.4, 0.5, 0.6, 0.5], [0.4, 0.7, 0.65, 0.62]
    assert pruned_at("wilcoxon", [best, worse, mixed], epochs=5) == [None, 2, None]


def test_none_gives_up_nothing() -> None:
    assert pruned_at("none", [[0.5] * 9, [0.0] * 9], epochs=9) == [None, None]


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"sampler=bayes.*tpe"):
        make_sampler("bayes", seed=0, space=SPACE)
    with pytest.raises(ArgumentError, match=r"pruner=halving.*asha"):
        make_pruner("halving", epochs=5)


@pytest.mark.parametrize("word", ["asha", "hyperband", "median", "wilcoxon"])
def test_several_goals_have_no_pruner(word: str) -> None:
    with pytest.raises(ArgumentError, match=f"pruner={word}.*2"):
        make_pruner(word, epochs=5, n_seeds=9, n_goals=2)
    assert make_pruner("none", epochs=5, n_goals=2)


def test_wilcoxon_needs_seeds() -> None:
    with pytest.raises(ArgumentError, match=f"and 3 cannot.*{SEEDS_FOR_WILCOXON}"):
        make_pruner("wilcoxon", epochs=5, n_seeds=3)


def test_a_grid_needs_an_end() -> None:
    with pytest.raises(ArgumentError, match=r"lr0=0\.0001:0\.1:log has no end.*sampler=tpe"):
        make_sampler("grid", seed=0, space=SPACE)
    with pytest.raises(ArgumentError, match="12000"):
        make_sampler("grid", seed=0, space=Space((Dimension("epochs", "int", 1, 12_000),)))


def test_trials_are_counted_when_they_are_asked_for() -> None:
    stopping = Stopping(3)
    assert stopping.reached([], n_asked=2) == ""
    assert stopping.reached([], n_asked=3) == "3 trials"


def test_hours_are_those_of_this_start_and_of_trials_of_earlier_ones() -> None:
    now = NOON.timestamp() + 10 * 3600  # ten o'clock at night
    stopping = Stopping(99, hours=3.0, clock=lambda: now + 0.5 * 3600, began=now)
    # 12 to 13 and 12:30 to 14 beside it: two hours; 15:00 to 15:29: nearly half of one; 22:00 to 22:15: this start.
    spans = [(0, 1), (0.5, 2), (3, 3 + 29 / 60), (10, 10.25)]
    finished = [trial(0.1, hours=span) for span in spans]
    assert stopping.reached(finished, n_asked=4) == ""
    assert stopping.reached([*finished, trial(0.1, hours=(3.4, 3.5))], n_asked=5) == "3 hours"


def test_patience_ends_a_search_that_gets_no_better() -> None:
    stopping = Stopping(99, patience=2, goals=[UP])
    assert stopping.reached(in_order(trial(0.5), trial(0.4)), n_asked=2) == ""
    assert "2 trials" in stopping.reached(in_order(trial(0.5), trial(0.4), trial(0.5)), n_asked=3)
    assert stopping.reached(in_order(trial(0.5), trial(0.4), trial(0.51)), n_asked=3) == ""


@pytest.mark.parametrize(
    ("trials", "since"),
    [
        ([], 0),
        ([trial(0.5)], 0),
        ([trial(0.5), trial(0.5)], 1),
        ([trial(0.3), trial(0.5), trial(0.4), trial(state="PRUNED")], 2),
        ([trial(0.5), trial(state="FAIL"), trial(state="FAIL")], 0),
        ([trial(0.5), trial(0.9, violation=0.1), trial(0.4, violation=-0.1)], 2),
        ([trial(0.9, violation=0.1), trial(state="PRUNED")], 0),
        ([trial(0.9, violation=0.1), trial(0.2, violation=0.0), trial(0.1, violation=0.0)], 1),
    ],
)
def test_trials_without_an_improvement_are_counted(trials: list[FrozenTrial], since: int) -> None:
    assert trials_since_improvement(in_order(*trials), [UP]) == since


def test_a_lower_value_improves_where_low_is_good() -> None:
    assert trials_since_improvement(in_order(trial(5.0), trial(4.0)), [DOWN]) == 0
    assert trials_since_improvement(in_order(trial(4.0), trial(5.0)), [DOWN]) == 1


def test_with_several_goals_a_trial_improves_unless_another_is_as_good_in_all() -> None:
    first, smaller, worse, same = trial(0.5, 6.0), trial(0.4, 5.0), trial(0.4, 5.5), trial(0.5, 6.0)
    assert trials_since_improvement(in_order(first, smaller), [UP, DOWN]) == 0
    assert trials_since_improvement(in_order(first, smaller, worse, same), [UP, DOWN]) == 2


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    late = trial(0.5, hours=(0, 9))
    assert trials_since_improvement(in_order(late, trial(0.3), trial(0.4, hours=(1, 2))), [UP]) == 0
    assert trials_since_improvement(in_order(late, trial(0.6), trial(0.4, hours=(1, 2))), [UP]) == 2


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"trials": 5, "patience": 0}, {"trials": 5, "hours": 0.0}])
def test_a_search_that_could_not_begin_is_refused(wrong: dict) -> None:
    with pytest.raises(ArgumentError, match=f"{list(wrong)[-1]}=0"):
        Stopping(**wrong)
