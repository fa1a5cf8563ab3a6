"""Optuna's own plots of a search; what it cannot draw yet is left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_yolo.studies.tuning.objective import Goal
from mlflow_yolo.studies.tuning.quiet import quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.importance import BaseImportanceEvaluator
    from optuna.trial import FrozenTrial

MOST_GOALS_OF_A_FRONT = 3
"""Dimensions in which Optuna draws a Pareto front."""

Figure = Any
"""A plotly figure."""

Plots = dict[str, tuple[str, Callable[[], Figure]]]
"""By name: what a plot says, and what draws it."""


def study_figures(study: "Study", goals: Sequence[Goal]) -> dict[str, Figure]:
    """Return the plots of a search by name, each with a title that says what it shows.

    Args:
        study: The Optuna study.
        goals: What its values are, in order.

    Returns:
        `pareto` (two or three goals), `history`, `importances`, `slices`, `parallel coordinates`, and `intermediate
        values` (one goal, where trials reported any). Where there are several goals, a plot of one is named
        `history of size_mb`. What too few finished trials do not suffice for is absent.
    """
    trials = _complete(study)
    if not trials:
        return {}
    several = len(goals) > 1
    plots = _front(study, goals) if several else {}
    for place, goal in enumerate(goals):
        of_one = _of_one_goal(study, goal, place if several else None)
        plots |= {f"{name} of {goal.metric}" if several else name: plot for name, plot in of_one.items()}
    plots |= _of_all_goals(study, goals)
    with quiet():
        return {name: _finish(draw(), title) for name, (title, draw) in plots.items()}


def importances(study: "Study", *, goal: int = 0) -> dict[str, float]:
    """Return which share of a goal's spread each searched dimension accounts for, the largest first; they add up to 1.

    From a random forest over the finished trials: with hardly more trials than dimensions it says next to nothing.

    Args:
        study: The Optuna study.
        goal: Place of the goal among the study's values.

    Returns:
        By dimension; empty where all finished trials have the same value, or differ in no dimension.

    Source: Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    from optuna.importance import get_param_importances

    trials = _complete(study)
    varied = _varied(trials)
    if not varied or not _differ(trials, goal):
        return {}
    with quiet():
        found = get_param_importances(study, evaluator=_evaluator(), params=varied, target=lambda one: one.values[goal])
    return {name: float(value) for name, value in found.items()}


def _front(study: "Study", goals: Sequence[Goal]) -> Plots:
    from optuna import visualization

    if len(goals) > MOST_GOALS_OF_A_FRONT:
        return {}
    names = [goal.metric for goal in goals]
    title = f"{' against '.join(names)}; red: surpassed by none in every goal{_grey(study)}"
    return {"pareto": (title, lambda: visualization.plot_pareto_front(study, target_names=names))}


def _of_one_goal(study: "Study", goal: Goal, place: int | None) -> Plots:
    """Return the plots of one goal; `place` is where its values stand where there are several."""
    from optuna import visualization

    trials, metric = _complete(study), goal.metric
    varied = _varied(trials)
    # Without a target Optuna also draws the best value so far, which it does for one goal only.
    target = None if place is None else lambda one: one.values[place]
    of: Mapping[str, Any] = {"target_name": metric, "target": target}
    plots: Plots = {
        "history": (
            f"{metric} of every trial{_grey(study)}",
            lambda: visualization.plot_optimization_history(study, **of),
        )
    }
    if varied and _differ(trials, place or 0):
        plots["importances"] = (
            f"Share of the spread of {metric} that each dimension accounts for, n={len(trials)} trials",
            lambda: visualization.plot_param_importances(study, evaluator=_evaluator(), params=varied, **of),
        )
    if varied:
        title = f"{metric} by each dimension{_grey(study)}"
        plots["slices"] = (title, lambda: visualization.plot_slice(study, params=varied, **of))
    return plots


def _of_all_goals(study: "Study", goals: Sequence[Goal]) -> Plots:
    from optuna import visualization

    names = [goal.metric for goal in goals]
    plots: Plots = {}
    if varied := _varied(_complete(study)):

        def lines() -> Figure:
            figure = visualization.plot_parallel_coordinate(study, params=varied, target_name=names[0])
            return figure.update_xaxes(ticktext=[*names, *figure.layout.xaxis.ticktext[len(names) :]])

        plots["parallel coordinates"] = (f"A line for every trial, with {', '.join(names)}", lines)
    if len(goals) == 1 and any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        title = f"What every trial reported on its way to {names[0]}"
        plots["intermediate values"] = (title, lambda: visualization.plot_intermediate_values(study))
    return plots


def _finish(figure: Figure, title: str) -> Figure:
    figure.update_layout(title={"text": title})
    return figure.update_xaxes(dtick=1, exponentformat="power", selector={"type": "log"})


def _complete(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _varied(trials: "Sequence[FrozenTrial]") -> list[str]:
    """Return the dimensions in which the trials differ."""
    names = list(trials[0].params) if trials else []
    return [name for name in names if len({trial.params.get(name) for trial in trials}) > 1]


def _differ(trials: "Sequence[FrozenTrial]", goal: int) -> bool:
    return len({trial.values[goal] for trial in trials}) > 1


def _grey(study: "Study") -> str:
    """Return what a grey marker is, where there are any."""
    broken = any(violation > 0 for trial in _complete(study) for violation in trial.constraints.values())
    return "; grey: it breaks a constraint" if broken else ""


def _evaluator() -> "BaseImportanceEvaluator":
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(seed=0)
