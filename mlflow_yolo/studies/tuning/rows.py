"""The trials of a search as they stand: what Optuna was told, beside what lies in each trial's folder."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from mlflow_yolo.studies.study import Study, Trial, read_result
from mlflow_yolo.studies.tuning.coordinator import DEFAULT, REASON, SAME_AS
from mlflow_yolo.studies.tuning.objective import Constraint, Goal
from mlflow_yolo.studies.tuning.outcome import State, TrialRow
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.training.job import JOB, RESULT

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def trial_key(number: int) -> str:
    """Return the key, and folder, of a trial: `trial-0007`."""
    return f"trial-{number:04d}"


def rows_of(
    search: optuna.Study, study: Study, *, goals: Sequence[Goal], constraints: Sequence[Constraint]
) -> list[TrialRow]:
    """Return one row for every trial that has ended, by number.

    Args:
        search: The Optuna study.
        study: Its folder; a trial without one there, because the search began on another machine, has the values that
            Optuna was told.
        goals: What Optuna's values are of.
        constraints: What makes a trial feasible.
    """
    told = [trial for trial in search.get_trials(deepcopy=False) if trial.state in _STATES]
    return [_row(trial, study, goals, constraints) for trial in told if SAME_AS not in trial.user_attrs]


def _row(trial: FrozenTrial, study: Study, goals: Sequence[Goal], constraints: Sequence[Constraint]) -> TrialRow:
    attempts = study.attempts(Trial(trial_key(trial.number), "", {}, {}))
    last = next((path for path in reversed(attempts) if read_result(path)), attempts[-1] if attempts else None)
    result = (read_result(last) if last else None) or {}
    file = read_run_file(last) if last else None
    told = dict(zip((goal.metric for goal in goals), trial.values or (), strict=False))
    values = {**told, **result.get("values", {})}
    seconds = float("nan")
    if last is not None and (last / RESULT).exists():
        seconds = (last / RESULT).stat().st_mtime - (last / JOB).stat().st_mtime
    return TrialRow(
        number=trial.number,
        state=_STATES[trial.state],
        params=dict(trial.params),
        values=values,
        attempts=max(1, len(attempts)),
        feasible=all(constraint.violation(values) <= 0 for constraint in constraints),
        seconds=seconds,
        run_id=file.run_id if file else None,
        directory=last,
        default=bool(trial.user_attrs.get(DEFAULT)),
        reason=str(trial.user_attrs.get(REASON, "")),
        epochs_done=int(result.get("epochs_done", len(trial.intermediate_values))),
    )
