"""The best trial and the default trained again on seeds that the search has not seen."""

from collections.abc import Sequence
from dataclasses import replace

from mlflow_yolo.studies.driver import Watcher, run_pending
from mlflow_yolo.studies.executors import Executor
from mlflow_yolo.studies.study import Study, Trial
from mlflow_yolo.studies.tuning.confirmation import Confirmation, Retrained, confirm
from mlflow_yolo.studies.tuning.outcome import TuneOutcome
from mlflow_yolo.studies.tuning.question import CheckedTune
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.target import Target


def new_seeds(checked: CheckedTune, n: int) -> tuple[int, ...]:
    """Return `n` seeds after those of the search."""
    first = max(checked.seeds) + 1
    return tuple(range(first, first + n))


def retrainings(checked: CheckedTune, outcome: TuneOutcome, n_seeds: int) -> dict[tuple[str, int], Trial]:
    """Return what is to be trained again, by `default` or `best` and the seed; costs are not measured a second time.

    Where the default is the best one, the best other trial is set against it: that it is better is to be shown, too.

    Args:
        checked: The question.
        outcome: What the search has found.
        n_seeds: New seeds.
    """
    challenger = outcome.challenger
    if challenger is None:
        return {}
    default = checked.space.enqueue(checked.defaults) or {}
    found = {}
    for seed in new_seeds(checked, n_seeds):
        for word, params in (("default", default), ("best", challenger.params)):
            plan = replace(checked.plan(params, seeds=(seed,)), costs=False, conf=None, iou=None)
            # Named after the trial: a search that goes on may choose another one.
            name = word if word == "default" else f"trial-{challenger.number}"
            found[word, seed] = Trial(
                key=f"confirm-{name}_seed-{seed}",
                name=f"{name.replace('-', ' ')} seed={seed}",
                params={**params, "seed": seed, "confirms": name},
                plan=plan.to_json(),
            )
    return found


def retrain(
    study: Study,
    trials: dict[tuple[str, int], Trial],
    executor: Executor,
    *,
    parent: TrackedRun,
    target: Target,
    watcher: Watcher,
) -> int:
    """Train what has no result yet, each below the parent run; return how many failed."""
    again = replace(study, trials=tuple(trials.values()))
    return run_pending(again, executor, parent=parent, target=target, watcher=watcher) if again.pending() else 0


def confirmed(study: Study, trials: dict[tuple[str, int], Trial], *, metric: str) -> Confirmation | None:
    """Return what the finished retrainings show, None where there are none.

    Args:
        study: The study.
        trials: See `retrainings`.
        metric: Key of the first goal.
    """
    return confirm(_of(study, trials, "default"), _of(study, trials, "best"), metric=metric.rpartition("/")[2])


def _of(study: Study, trials: dict[tuple[str, int], Trial], word: str) -> Sequence[Retrained]:
    found = [(seed, study.result(trial)) for (kind, seed), trial in trials.items() if kind == word]
    return [Retrained(seed, *result) for seed, result in found if result is not None]
