"""One owner of ask and tell: every configuration is counted once, whoever is killed when. Workers are scripted."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlflow_yolo.studies.executors import Event, Job, NextJob
from mlflow_yolo.studies.study import Study, Trial
from mlflow_yolo.studies.tuning.coordinator import ATTEMPTS, REASON, SAME_AS, Coordinator, Rules
from mlflow_yolo.studies.tuning.objective import Constraint, Goal
from mlflow_yolo.studies.tuning.search import Stopping

ACCURACY = Goal("final/mAP50-95", "maximize")
Script = Callable[[Job, dict[str, Any]], Iterator[Event]]


class Killed(BaseException):
    """Stands for a kill -9 of the driver: nothing after it is done."""


class ScriptedExecutor:
    """Lets a script say what every job does, one job after the other."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.jobs: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []

    def run(self, next_job: NextJob) -> Iterator[Event]:
        while job := next_job():
            self.jobs.append(job.key)
            yield from self.script(job, json.loads(job.file.read_text())["params"])

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        self.told.append((key, dict(message)))


class Watcher:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.endings: list[tuple[str, str | None, str]] = []
        self.notes: list[tuple[str, str]] = []

    def epoch(self, trial: Trial, values: Mapping[str, Any]) -> None:
        pass

    def note(self, trial: Trial, text: str) -> None:
        self.notes.append((trial.key, text))

    def ended(self, trial: Trial, *, error: str | None, how: str = "finished") -> None:
        self.endings.append((trial.key, error, how))


def search_in(folder: Path, **settings: Any) -> optuna.Study:
    """Return the study of a folder, as a driver that starts would find it."""
    storage = JournalStorage(JournalFileBackend(str(folder / "journal")))
    sampler = settings.pop("sampler", None) or optuna.samplers.RandomSampler()
    directions = settings.pop("directions", ["maximize"])
    return optuna.create_study(
        storage=storage, study_name="s", load_if_exists=True, directions=directions, sampler=sampler, **settings
    )


def coordinator_in(folder: Path, search: optuna.Study, *, trials: int = 3, **rules: Any) -> Coordinator:
    study = Study(folder, "s", "uid", {}, 1, ())
    given = {
        "distributions": {"depth": IntDistribution(0, 10**9)},
        "goals": (ACCURACY,),
        "constraints": (),
        "stopping": Stopping(trials=trials, hours=None, patience=None),
        **rules,
    }
    return Coordinator(
        search,
        study,
        rules=Rules(**given),
        describe=lambda number, values: Trial(f"trial-{number}", f"trial {number}", dict(values), {}),
        child_run=lambda _trial, tags: {"tags": dict(tags)},
        settle=lambda _attempt: None,
    )


def write(job: Job, status: str, **content: Any) -> None:
    (job.file.parent / "result.json").write_text(json.dumps({"status": status, **content}))


def ended(job: Job, code: int = 0) -> Event:
    return Event(job.key, "ended", {"exit_code": code})


def finishing(job: Job, params: dict[str, Any]) -> Iterator[Event]:
    """A trial whose accuracy is its depth in hundredths."""
    write(job, "finished", values={ACCURACY.metric: params["depth"] / 100})
    yield ended(job)


def states(search: optuna.Study) -> list[str]:
    return [trial.state.name for trial in search.get_trials(deepcopy=False)]


def test_every_trial_is_told_the_value_that_its_result_file_says(tmp_path: Path) -> None:
    search, watcher = search_in(tmp_path), Watcher()

    coordinator_in(tmp_path, search).run(ScriptedExecutor(finishing), watcher)

    assert [trial.values for trial in search.trials] == [[trial.params["depth"] / 100] for trial in search.trials]
    assert watcher.endings == [(f"trial-{n}", None, "finished") for n in range(3)]


def test_runs_of_attempts_say_which_trial_and_attempt_they_are(tmp_path: Path) -> None:
    executor = ScriptedExecutor(finishing)
    coordinator_in(tmp_path, search_in(tmp_path), trials=1).run(executor, Watcher())

    job = json.loads((tmp_path / "trial-0" / "attempt-1" / "job.json").read_text())
    assert job["run"]["tags"] == {"optuna.study": "s", "optuna.number": "0", "optuna.attempt": "1"}


def test_a_trial_whose_worker_is_lost_is_tried_again_under_its_own_number(tmp_path: Path) -> None:
    def lost_twice(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        if job.file.parent.name == "attempt-3":
            yield from finishing(job, params)
        else:
            yield ended(job, -9)

    search, watcher, executor = search_in(tmp_path), Watcher(), ScriptedExecutor(lost_twice)
    coordinator_in(tmp_path, search, trials=1).run(executor, watcher)

    assert states(search) == ["COMPLETE"]
    assert executor.jobs == ["trial-0"] * 3
    assert ["it is tried again" in text for _, text in watcher.notes] == [True, True]


def test_a_trial_that_kills_every_worker_is_given_up_after_three(tmp_path: Path) -> None:
    def deadly(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        yield ended(job, -9)

    search, watcher, executor = search_in(tmp_path), Watcher(), ScriptedExecutor(deadly)
    coordinator_in(tmp_path, search, trials=2).run(executor, watcher)

    assert states(search) == ["FAIL", "FAIL"]
    assert executor.jobs == ["trial-0"] * ATTEMPTS + ["trial-1"] * ATTEMPTS
    assert all("code -9" in str(error) for _, error, _ in watcher.endings)
    assert "code -9" in search.trials[0].user_attrs[REASON]


def test_a_failure_is_told_at_once_and_one_of_memory_is_tried_again(tmp_path: Path) -> None:
    def failing(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        if job.key == "trial-0":
            write(job, "failed", error="no such layer")
        elif job.file.parent.name == "attempt-1":
            write(job, "failed", error="CUDA out of memory", retry=True)
        else:
            yield from finishing(job, params)
            return
        yield Event(job.key, "progress", {"error": "what it said"})
        yield ended(job, 1)

    search, watcher, executor = search_in(tmp_path), Watcher(), ScriptedExecutor(failing)
    coordinator_in(tmp_path, search, trials=2).run(executor, watcher)

    assert states(search) == ["FAIL", "COMPLETE"]
    assert executor.jobs == ["trial-0", "trial-1", "trial-1"]
    assert search.trials[0].user_attrs[REASON] == "no such layer"
    assert watcher.endings[0][1] == "no such layer"


def test_a_result_without_the_metric_is_a_failure_that_names_it(tmp_path: Path) -> None:
    def empty(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        write(job, "finished", values={ACCURACY.metric: float("nan")} if job.key == "trial-1" else {})
        yield ended(job)

    search, watcher = search_in(tmp_path), Watcher()
    coordinator_in(tmp_path, search, trials=2).run(ScriptedExecutor(empty), watcher)

    assert states(search) == ["FAIL", "FAIL"]
    assert [error for _, error, _ in watcher.endings] == ["final/mAP50-95 was not measured"] * 2


@pytest.mark.parametrize("when", ["before the job", "while it runs", "after its result", "after it is told"])
def test_a_driver_that_is_killed_loses_no_trial_and_counts_none_twice(tmp_path: Path, when: str) -> None:
    def killing(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        if job.key == "trial-1" and when == "before the job":
            (job.file.parent / "job.json").unlink()
            raise Killed
        yield Event(job.key, "progress", {"epoch": 1, "epochs": 2, "metric": "m", "value": 0.5})
        if job.key == "trial-1" and when == "while it runs":
            raise Killed
        write(job, "finished", values={ACCURACY.metric: params["depth"] / 100})
        if job.key == "trial-1" and when == "after its result":
            raise Killed
        yield ended(job)
        if job.key == "trial-1":
            raise Killed

    search = search_in(tmp_path)
    with pytest.raises(Killed):
        coordinator_in(tmp_path, search).run(ScriptedExecutor(killing), Watcher())
    params = [trial.params for trial in search_in(tmp_path).trials]

    again, executor = search_in(tmp_path), ScriptedExecutor(finishing)
    coordinator_in(tmp_path, again).run(executor, Watcher())

    assert states(again) == ["COMPLETE"] * 3
    assert [trial.params for trial in again.trials][:2] == params[:2]
    repeated = [] if when in ("after its result", "after it is told") else ["trial-1"]
    assert executor.jobs == [*repeated, "trial-2"]
    assert [trial.values for trial in again.trials] == [[trial.params["depth"] / 100] for trial in again.trials]


def test_a_driver_killed_while_it_asks_leaves_a_trial_that_gets_its_missing_values(tmp_path: Path) -> None:
    dimensions = {"depth": IntDistribution(0, 99), "width": IntDistribution(0, 99)}
    trial = search_in(tmp_path).ask()
    depth = trial.suggest_int("depth", 0, 99)

    search, executor = search_in(tmp_path), ScriptedExecutor(finishing)
    coordinator_in(tmp_path, search, trials=1, distributions=dimensions).run(executor, Watcher())

    assert states(search) == ["COMPLETE"]
    assert search.trials[0].params.keys() == {"depth", "width"}
    assert search.trials[0].params["depth"] == depth


def test_interruptions_of_the_driver_do_not_use_up_a_trials_attempts(tmp_path: Path) -> None:
    def killing(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        yield Event(job.key, "progress", {"note": "begun"})
        raise Killed

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(Killed):
            coordinator_in(tmp_path, search_in(tmp_path), trials=1).run(ScriptedExecutor(killing), Watcher())

    search = search_in(tmp_path)
    coordinator_in(tmp_path, search, trials=1).run(ScriptedExecutor(finishing), Watcher())
    assert states(search) == ["COMPLETE"]
    assert len(list((tmp_path / "trial-0").glob("attempt-*"))) == ATTEMPTS + 2


def test_a_pruner_stops_a_trial_by_a_message_and_its_state_is_pruned(tmp_path: Path) -> None:
    executor: ScriptedExecutor

    def obeying(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        good = job.key == "trial-0"
        for epoch in (1, 2, 3):
            yield Event(
                job.key, "progress", {"epoch": epoch, "epochs": 3, "metric": "m", "value": 0.9 if good else 0.1}
            )
            if (job.key, {"stop": "pruned"}) in executor.told:
                write(job, "pruned", values={})
                yield ended(job)
                return
        yield from finishing(job, params)

    search = search_in(tmp_path, pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    executor, watcher = ScriptedExecutor(obeying), Watcher()
    coordinator_in(tmp_path, search, trials=2).run(executor, watcher)

    assert states(search) == ["COMPLETE", "PRUNED"]
    assert executor.told == [("trial-1", {"stop": "pruned"})]
    assert watcher.endings[1] == ("trial-1", None, "pruned")
    assert list(search.trials[1].intermediate_values) == [0]  # the first epoch, by which it was judged


def test_a_trial_that_falls_behind_in_its_last_epoch_is_left_to_finish(tmp_path: Path) -> None:
    def late(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        value = 0.9 if job.key == "trial-0" else 0.1
        yield Event(job.key, "progress", {"epoch": 1, "epochs": 1, "metric": "m", "value": value})
        yield from finishing(job, params)

    search, executor = (
        search_in(tmp_path, pruner=optuna.pruners.MedianPruner(n_startup_trials=1)),
        ScriptedExecutor(late),
    )
    coordinator_in(tmp_path, search, trials=2).run(executor, Watcher())

    assert states(search) == ["COMPLETE", "COMPLETE"]
    assert executor.told == []


def test_an_attempt_after_a_kill_does_not_report_its_epochs_twice(tmp_path: Path) -> None:
    def twice(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        first = job.file.parent.name == "attempt-1"
        for epoch in (1, 2) if first else (1, 2, 3):
            values = {"epoch": epoch, "epochs": 3, "metric": "m", "value": epoch / 10 if first else epoch / 5}
            yield Event(job.key, "progress", values)
        if first:
            yield ended(job, -9)
        else:
            yield from finishing(job, params)

    search = search_in(tmp_path, pruner=optuna.pruners.NopPruner())
    coordinator_in(tmp_path, search, trials=1).run(ScriptedExecutor(twice), Watcher())

    assert search.trials[0].intermediate_values == {0: 0.1, 1: 0.2, 2: 0.6}


def test_seeds_are_reported_instead_of_epochs_where_the_pruner_compares_them(tmp_path: Path) -> None:
    def seeds(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        for seed in (0, 1):
            yield Event(job.key, "progress", {"epoch": 1, "epochs": 1, "metric": "m", "value": 0.7})
            values = {ACCURACY.metric: seed / 10}
            yield Event(job.key, "progress", {"seed": seed, "value": 0.7, "values": values})
        yield from finishing(job, params)

    search = search_in(tmp_path, pruner=optuna.pruners.NopPruner())
    coordinator_in(tmp_path, search, trials=1, by_seed=True).run(ScriptedExecutor(seeds), Watcher())

    assert search.trials[0].intermediate_values == {0: 0.0, 1: 0.1}


def test_a_trial_whose_size_breaks_a_constraint_is_not_trained(tmp_path: Path) -> None:
    executor: ScriptedExecutor

    def measured(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        size = 8.0 if job.key == "trial-0" else 5.0
        yield Event(job.key, "progress", {"measured": {"size_mb": size}})
        if (job.key, {"stop": "pruned"}) in executor.told:
            write(job, "pruned", values={"size_mb": size})
        else:
            write(job, "finished", values={"size_mb": size, ACCURACY.metric: 0.4})
        yield ended(job)

    search, executor, watcher = search_in(tmp_path), ScriptedExecutor(measured), Watcher()
    constraint = Constraint("size_mb", "<=", 6.0)
    coordinator_in(tmp_path, search, trials=2, constraints=(constraint,)).run(executor, watcher)

    assert states(search) == ["PRUNED", "COMPLETE"]
    assert [dict(trial.constraints) for trial in search.trials] == [
        {"size_mb<=6": pytest.approx(2 / 6)},
        {"size_mb<=6": pytest.approx(-1 / 6)},
    ]
    assert watcher.notes == [("trial-0", "not trained on: size_mb=8 breaks size_mb<=6")]
    assert search.best_trial.number == 1


def test_with_several_goals_every_value_is_told_and_nothing_is_pruned(tmp_path: Path) -> None:
    def measured(job: Job, params: dict[str, Any]) -> Iterator[Event]:
        yield Event(job.key, "progress", {"measured": {"size_mb": 9.0}})
        yield Event(job.key, "progress", {"epoch": 1, "epochs": 1, "metric": "m", "value": 0.1})
        write(job, "finished", values={"size_mb": 9.0, ACCURACY.metric: 0.25})
        yield ended(job)

    search, executor = search_in(tmp_path, directions=["maximize", "minimize"]), ScriptedExecutor(measured)
    goals = (ACCURACY, Goal("size_mb", "minimize"))
    rules = {"goals": goals, "constraints": (Constraint("size_mb", "<=", 6.0),), "spares": False, "reports": False}
    coordinator_in(tmp_path, search, trials=1, **rules).run(executor, Watcher())

    assert search.trials[0].values == [0.25, 9.0]
    assert executor.told == []
    assert search.trials[0].constraints["size_mb<=6"] == pytest.approx(0.5)


def test_what_was_tried_is_not_trained_again_and_a_small_space_comes_to_its_end(tmp_path: Path) -> None:
    search, executor = search_in(tmp_path), ScriptedExecutor(finishing)
    coordinator = coordinator_in(
        tmp_path, search, trials=50, distributions={"depth": CategoricalDistribution([1, 2, 3])}
    )

    coordinator.run(executor, Watcher())

    assert len(executor.jobs) == 3
    assert coordinator.exhausted
    trained = [trial for trial in search.trials if SAME_AS not in trial.user_attrs]
    assert sorted(trial.params["depth"] for trial in trained) == [1, 2, 3]
    assert all(trial.state == TrialState.FAIL for trial in search.trials if SAME_AS in trial.user_attrs)


def test_a_search_goes_on_where_more_trials_are_asked_for(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    coordinator_in(tmp_path, search, trials=2).run(ScriptedExecutor(finishing), Watcher())
    executor = ScriptedExecutor(finishing)
    coordinator_in(tmp_path, search_in(tmp_path), trials=5).run(executor, Watcher())

    assert executor.jobs == ["trial-2", "trial-3", "trial-4"]
