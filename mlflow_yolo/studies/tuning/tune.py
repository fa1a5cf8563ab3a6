"""Which freeze depth, learning rate, pruning ratio? One parent run, one child per trial, and proof for the best one.

Whatever interrupts it, starting it again goes on: trials that were told stay told, results that were not told are told,
and the rest is tried again under its own number (see `coordinator`).
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.driver import child_run, prepare_data, settle, settle_ended
from mlflow_yolo.studies.freeze.advice import check_source, log_advice
from mlflow_yolo.studies.parent import open_parent, point_to_parent
from mlflow_yolo.studies.progress import Progress
from mlflow_yolo.studies.study import Study, Trial, default_name, open_study
from mlflow_yolo.studies.tuning.artifacts import log_outcome, text_of
from mlflow_yolo.studies.tuning.coordinator import SAME_AS, Coordinator, Rules
from mlflow_yolo.studies.tuning.live import Live
from mlflow_yolo.studies.tuning.outcome import TuneOutcome, outcome_of
from mlflow_yolo.studies.tuning.plots import importances
from mlflow_yolo.studies.tuning.question import CheckedTune, TuneQuestion, check_tune
from mlflow_yolo.studies.tuning.retraining import confirmed, retrain, retrainings
from mlflow_yolo.studies.tuning.rows import rows_of, trial_key
from mlflow_yolo.studies.tuning.search import Stopping
from mlflow_yolo.studies.tuning.search_study import open_search
from mlflow_yolo.studies.tuning.storage import open_storage, reach_storage
from mlflow_yolo.studies.tuning.where import Where
from mlflow_yolo.tracking.delivery.journal import journal_path
from mlflow_yolo.tracking.delivery.replay import closing_status, replay
from mlflow_yolo.tracking.events.command_run import log_dataset
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.addresses import without_password
from mlflow_yolo.tracking.stores.store import prepare_store
from mlflow_yolo.tracking.stores.target import Target


@dataclass(frozen=True)
class Effort:
    """How much is spent on a search; none of it is part of the question, so that it can be continued with more.

    Attributes:
        trials: Trials in all.
        hours: Time after which no further trial begins, counted from the first one; None for any.
        patience: Finished trials without a better value after which none begins; None for any.
        confirm: New seeds that the best trial and the default are trained with at the end.
        advice: Whether the freeze advisor is asked, where freeze is searched.
        source: What the model was trained on, which makes the advice better.
        storage: PostgreSQL URL of the study storage, None for `MLFLOW_YOLO_STORAGE` or a file in the study's folder.
    """

    trials: int
    hours: float | None
    patience: int | None
    confirm: int
    advice: bool = True
    source: str | None = None
    storage: str | None = None

    def check(self) -> None:
        """Raise ArgumentError for the first value that cannot be used."""
        Stopping(self.trials, self.hours, self.patience)
        if self.confirm < 0:
            raise ArgumentError(f"confirm={self.confirm} is below 0. Use the number of new seeds, 0 for none.")


@dataclass(frozen=True)
class Outcome:
    """What `tune` ends with.

    Attributes:
        found: The trials and what is chosen of them.
        text: What the terminal shows.
        failed: Whether no trial has a result.
    """

    found: TuneOutcome
    text: str
    failed: bool


def run_tune(
    question: TuneQuestion,
    *,
    effort: Effort,
    where: Where,
    tracking: Target,
    study: str | None,
    output: Path,
) -> Outcome:
    """Run or resume a search and return its outcome.

    Args:
        question: What is searched.
        effort: How much is spent on it.
        where: Where its trials run, and how many at once.
        tracking: Where the runs go.
        study: Its name; None derives one from the question, so that the same command resumes.
        output: The folder of all studies.

    Raises:
        InputError: Something in the question, a store or the folder cannot work; nothing has been trained.
        WorkError: The study storage failed on the way; the same command continues.
    """
    checked = check_tune(question)
    effort.check()
    reach_storage(effort.storage)
    where.check()
    if effort.source:
        check_source(effort.source, checked.space.model(checked.defaults))
    place = {"tracking_uri": without_password(tracking.tracking_uri), "experiment": tracking.place_name}
    config = {**place, **checked.config}
    name = study or default_name("tune", config)
    with (
        open_study(output, name, config=config, trials=(), threads=where.threads) as opened,
        open_storage(effort.storage, opened.directory, name) as storage,
    ):
        search = open_search(checked, storage, name)
        if notice := prepare_store(tracking.tracking_uri, directory=opened.directory):
            print(f"note: {notice}", file=sys.stderr)
        settle(opened, tracking)
        tuning = _Tuning(checked, effort, opened, search, tracking, where)
        return tuning.show_again() if tuning.is_over else tuning.run()


@dataclass(frozen=True)
class _Tuning:
    """One search in progress."""

    checked: CheckedTune
    effort: Effort
    study: Study
    search: optuna.Study
    target: Target
    where: Where

    @property
    def is_over(self) -> bool:
        """Whether everything that is asked for was trained and logged before."""
        trained = all(self.study.result(trial) for trial in self._retrainings().values())
        return closing_status(journal_path(self.study.directory)) == "FINISHED" and self._n_missing == 0 and trained

    def run(self) -> Outcome:
        """Run what is missing under the parent run, and put together what all trials show."""
        parent = open_parent(self.study, self.target)
        try:
            parent.log_params(_params(self.checked))
            log_dataset(parent, self.checked.dataset, context="training")
            self._advise(parent)
            if self._n_missing:
                prepare_data(self.study, self.checked.dataset)
            self._search(parent)
            self._confirm(parent)
            found = self.outcome()
            parent.flush(timeout_s=10.0)
            log_outcome(parent, self.study, self.search, self.checked, found, self.target)
        except KeyboardInterrupt:
            parent.close("KILLED", state="interrupted", timeout_s=5.0, close_adopted=True)
            raise
        except BaseException:
            parent.close("FAILED", close_adopted=True)
            raise
        failed = not found.in_state("finished")
        parent.close("FAILED" if failed else "FINISHED", close_adopted=True)
        return self._ended(found, failed)

    def show_again(self) -> Outcome:
        """Return the outcome of a search that is finished and logged; nothing of it is logged twice."""
        point_to_parent(self.study, self.target)
        return self._ended(self.outcome(), failed=False)

    def outcome(self) -> TuneOutcome:
        """Return what is known of the search now, the proof on new seeds and what matters most included."""
        found = self._chosen()
        proof = confirmed(self.study, self._retrainings(), metric=found.goals[0].metric)
        return replace(found, confirmation=proof, importance=importances(self.search))

    def _chosen(self) -> TuneOutcome:
        """Return the trials that have ended, and which of them is chosen."""
        goals, constraints = self.checked.goals, self.checked.constraints
        rows = rows_of(self.search, self.study, goals=goals, constraints=constraints)
        return outcome_of(rows, goals, constraints)

    def _retrainings(self) -> dict[tuple[str, int], Trial]:
        return retrainings(self.checked, self._chosen(), self.effort.confirm)

    @property
    def _n_missing(self) -> int:
        """Trials that are to be trained yet."""
        trials = [one for one in self.search.get_trials(deepcopy=False) if SAME_AS not in one.user_attrs]
        ended = [one for one in trials if one.state.is_finished()]
        n_running = sum(one.state == TrialState.RUNNING for one in trials)
        if self._stopping.reached(ended, n_asked=len(ended) + n_running):
            return n_running
        return self._n_trials - len(ended)

    @property
    def _n_trials(self) -> int:
        """Trials in all: as many as are asked for, or as the space has points."""
        n_points = self.checked.space.n_points
        return self.effort.trials if n_points is None else min(self.effort.trials, n_points)

    @property
    def _stopping(self) -> Stopping:
        return Stopping(self._n_trials, self.effort.hours, self.effort.patience, goals=self.checked.goals)

    def _search(self, parent: TrackedRun) -> None:
        """Run trials until the rules say stop."""
        checked = self.checked
        rules = Rules(
            distributions=checked.space.distributions(),
            goals=checked.goals,
            constraints=checked.constraints,
            stopping=self._stopping,
            reports=checked.reports,
            by_seed=checked.pruner == "wilcoxon",
            spares=len(checked.goals) == 1,
        )
        coordinator = Coordinator(
            self.search,
            self.study,
            rules=rules,
            describe=self._describe,
            child_run=lambda trial, tags: child_run(self.study, trial, parent, self.target, tags=tags),
            settle=partial(settle_ended, target=self.target),
        )
        with self._progress(self._n_trials, self._n_trials - self._n_missing, len(checked.seeds)) as bar:
            coordinator.run(self.where.make(self.study, self.target), Live(bar, parent, self.search, checked.goals))
        if coordinator.exhausted:
            print("note: the space holds nothing more that was not tried", file=sys.stderr)

    def _confirm(self, parent: TrackedRun) -> None:
        """Train the best trial and the default on new seeds."""
        again = self._retrainings()
        n_finished = sum(self.study.result(trial) is not None for trial in again.values())
        if n_finished == len(again):
            return
        with self._progress(len(again), n_finished, 1) as bar:
            executor = self.where.make(self.study, self.target)
            n_failed = retrain(self.study, again, executor, parent=parent, target=self.target, watcher=bar)
        if n_failed:
            print(f"note: {n_failed} of them failed; the same command tries them again", file=sys.stderr)

    def _describe(self, number: int, values: Mapping[str, Any]) -> Trial:
        """Return our trial of a number and the suggested values."""
        plan = self.checked.plan(values)
        seed = plan.plan.seed
        return Trial(
            key=trial_key(number),
            name=f"trial {number} " + " ".join(f"{name}={_short(value)}" for name, value in values.items()),
            params={"freeze": self.checked.defaults["freeze"], "lr0": plan.plan.stages[0].lr0, **values, "seed": seed},
            plan=plan.to_json(),
        )

    @contextmanager
    def _progress(self, n_trials: int, n_finished: int, n_seeds: int) -> Iterator[Progress]:
        n_epochs = self.checked.plan({}).plan.epochs * n_seeds
        with Progress(self.study.name, n_trials=n_trials, n_finished=n_finished, n_epochs=n_epochs) as bar:
            yield bar

    def _advise(self, parent: TrackedRun) -> None:
        """Log how deep a few batches suggest to freeze, where that is searched."""
        if self.effort.advice and "freeze" in self.checked.space:
            plan, source = self.checked.plan({}).plan, self.effort.source
            log_advice(parent, self.study.directory, plan, source=source, threads=self.study.threads)

    def _ended(self, found: TuneOutcome, failed: bool) -> Outcome:
        n_pending = replay(self.study.directory).n_pending
        return Outcome(found, text_of(found, self.study, self.checked, self.target, n_pending=n_pending), failed)


def _params(checked: CheckedTune) -> dict[str, object]:
    """Return the params of the parent run, as they were given: under `mlflow run` it holds the same already."""
    names = ("data", "model", "space", "objective", "constraints", "sampler", "pruner", "seeds")
    more = ("epochs", "imgsz", "batch", "optimizer", "lr0", "freeze", "strategy", "lr_decay")
    values = {name: getattr(checked.given, name) for name in (*names, *more)}
    return {name: "auto" if value in (None, "") else value for name, value in values.items()}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
