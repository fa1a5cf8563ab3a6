import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from mlflow_yolo.studies.tuning.dimensions import Dimension
from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.studies.tuning.plots import importances, study_figures
from mlflow_yolo.studies.tuning.search import make_sampler
from mlflow_yolo.studies.tuning.space import Space

SPACE = Space(
    (
        Dimension("freeze", "int", 0, 11),
        Dimension("lr0", "float", 1e-4, 1e-1, log=True),
        Dimension("optimizer", "choice", choices=("SGD", "AdamW")),
        Dimension("epochs", "int", 5, 5),
    )
)
ACCURACY, SIZE, LATENCY, TIME = (
    Goal("final/mAP50-95", "maximize"),
    Goal("size_mb", "minimize"),
    Goal("latency_p95_ms", "minimize"),
    Goal("train_s", "minimize"),
)


@pytest.fixture(autouse=True)
def quiet_optuna(caplog: pytest.LogCaptureFixture):
    """Hold Optuna to silence: its own advice on what to do differently is none for the user of this package."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.enable_propagation()
    yield
    optuna.logging.disable_propagation()
    assert not caplog.records


def searched(goals: list[Goal], n: int, *, reports: bool = False, violations: bool = False) -> Study:
    sampler = make_sampler("random", seed=0, space=SPACE, n_goals=len(goals))
    study = optuna.create_study(directions=[goal.direction for goal in goals], sampler=sampler)
    for number in range(n):
        trial = study.ask(SPACE.distributions())
        if reports:
            trial.report(0.1 * number, 0)
        if violations:
            trial.set_constraint("size_mb<=6", 1.0 if number % 2 else -1.0)
        freeze = trial.params["freeze"]
        study.tell(trial, [freeze / 11, 11.0 - freeze, 5.0 + number, 7.0][: len(goals)])
    return study


def test_one_goal_has_five_plots() -> None:
    figures = study_figures(searched([ACCURACY], 6, reports=True), [ACCURACY])
    assert list(figures) == ["history", "importances", "slices", "parallel coordinates", "intermediate values"]
    assert all(figure.data and figure.layout.title.text for figure in figures.values())
    assert figures["history"].layout.title.text == "final/mAP50-95 of every trial"
    assert {"final/mAP50-95", "Best Value"} <= {trace.name for trace in figures["history"].data}


def test_the_plots_hold_the_trials_values() -> None:
    study = searched([ACCURACY], 6)
    history = study_figures(study, [ACCURACY])["history"]
    values = next(trace for trace in history.data if trace.name == "final/mAP50-95")
    assert list(values.y) == [trial.value for trial in study.trials]
    best = next(trace for trace in history.data if trace.name == "Best Value")
    assert list(best.y) == [max(trial.value for trial in study.trials[: i + 1]) for i in range(6)]


def test_only_dimensions_in_which_trials_differ_are_drawn() -> None:
    lines = study_figures(searched([ACCURACY], 6), [ACCURACY])["parallel coordinates"]
    assert list(lines.layout.xaxis.ticktext) == ["final/mAP50-95", "freeze", "lr0", "optimizer"]


@pytest.mark.parametrize("goals", [[ACCURACY, SIZE], [ACCURACY, SIZE, LATENCY]])
def test_two_and_three_goals_have_a_front_and_plots_of_each(goals: list[Goal]) -> None:
    figures = study_figures(searched(goals, 4), goals)
    assert next(iter(figures)) == "pareto"
    assert {f"history of {goal.metric}" for goal in goals} <= figures.keys()
    names = [goal.metric for goal in goals]
    assert list(figures["parallel coordinates"].layout.xaxis.ticktext)[: len(names)] == names


def test_four_goals_have_no_front_and_a_constant_one_no_importances() -> None:
    goals = [ACCURACY, SIZE, LATENCY, TIME]
    figures = study_figures(searched(goals, 4), goals)
    assert "pareto" not in figures
    assert "importances of size_mb" in figures
    assert "importances of train_s" not in figures


def test_what_cannot_be_drawn_yet_is_left_out() -> None:
    assert study_figures(searched([ACCURACY], 0), [ACCURACY]) == {}
    assert list(study_figures(searched([ACCURACY], 1), [ACCURACY])) == ["history"]
    assert study_figures(searched([ACCURACY, SIZE], 0), [ACCURACY, SIZE]) == {}


def test_a_search_whose_trials_all_failed_has_no_plot() -> None:
    study = searched([ACCURACY], 0)
    study.tell(study.ask(SPACE.distributions()), state=TrialState.FAIL)
    assert study_figures(study, [ACCURACY]) == {}
    assert importances(study) == {}


def test_grey_is_explained_where_there_is_any() -> None:
    plain, broken = (study_figures(searched([ACCURACY], 6, violations=some), [ACCURACY]) for some in (False, True))
    assert "grey" not in plain["history"].layout.title.text
    assert "grey: it breaks a constraint" in broken["history"].layout.title.text
    assert "grey" not in broken["importances"].layout.title.text


def test_the_dimension_that_decides_is_the_important_one() -> None:
    found = importances(searched([ACCURACY, SIZE], 30), goal=1)
    assert next(iter(found)) == "freeze"
    assert found["freeze"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)
    assert "epochs" not in found


def test_importances_are_the_same_every_time_and_the_plots_own() -> None:
    study = searched([ACCURACY], 12)
    found = importances(study)
    assert importances(study) == found
    drawn = study_figures(study, [ACCURACY])["importances"].data[0]
    assert dict(zip(drawn.y, drawn.x, strict=True)) == pytest.approx(found)


def test_values_that_are_all_the_same_say_nothing() -> None:
    study = searched([TIME], 0)
    for _ in range(5):
        study.tell(study.ask(SPACE.distributions()), 7.0)
    assert importances(study) == {}
    assert "importances" not in study_figures(study, [TIME])
