"""The Optuna study of a search: made once, with the known-good values first, and recognised again by what it asks."""

import json
from typing import Any

import optuna
from optuna.storages import BaseStorage

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.tuning.coordinator import DEFAULT
from mlflow_yolo.studies.tuning.question import CheckedTune
from mlflow_yolo.studies.tuning.quiet import quiet
from mlflow_yolo.studies.tuning.search import make_pruner, make_sampler

_CONFIG = "mlflow_yolo.config"


def open_search(checked: CheckedTune, storage: BaseStorage, name: str) -> optuna.Study:
    """Return the Optuna study of a name, new or as it was left.

    Args:
        checked: What is asked.
        storage: Where it is kept; this process alone uses the study.
        name: The study's name.

    Raises:
        ArgumentError: The storage has a study of this name that asks something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with quiet():
        search = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            directions=[goal.direction for goal in checked.goals],
            sampler=make_sampler(
                checked.given.sampler, seed=checked.seeds[0], space=checked.space, n_goals=len(checked.goals)
            ),
            pruner=make_pruner(
                checked.pruner,
                epochs=checked.given.epochs,
                n_seeds=len(checked.seeds),
                n_goals=len(checked.goals),
            ),
        )
        _check_same(search, checked, name)
        if not any(DEFAULT in trial.user_attrs for trial in search.get_trials(deepcopy=False)):
            search.enqueue_trial(checked.space.enqueue(checked.defaults) or {}, user_attrs={DEFAULT: True})
    return search


def _check_same(search: optuna.Study, checked: CheckedTune, name: str) -> None:
    """Raise where a storage that several people use has a study of this name with another question."""
    now: dict[str, Any] = json.loads(json.dumps(checked.config))
    earlier = search.user_attrs.get(_CONFIG)
    if earlier is None:
        search.set_user_attr(_CONFIG, now)
        return
    for key in sorted({*earlier, *now}):
        if earlier.get(key) != now.get(key):
            raise ArgumentError(
                f"the storage has a study {name} with another {key}. Name another with --study, or ask the same."
            )
