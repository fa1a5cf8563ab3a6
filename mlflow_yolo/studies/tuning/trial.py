"""One trial of a search, in its worker: prune, measure what it costs, train every seed, look up the operating point.

Costs come first: a model that is too slow is known before it is trained, and the driver may end the trial there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.models.data import localise
from mlflow_yolo.studies.alone import Machine
from mlflow_yolo.studies.thresholds.inside import best_operating_point
from mlflow_yolo.studies.tuning.costs import measure_costs, prune_start
from mlflow_yolo.studies.tuning.seed_run import in_run_below
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.tracking.events.final_values import per_class_metrics
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training.inbox import Inbox
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.starting_weights import starting_weights
from mlflow_yolo.training.train import Report, train

ANSWER_S = 0.5
"""How long the driver is given to rule on costs; a later order ends the training after the next batch."""

_COPIED = ("overfit_gap", "epochs_to_90", "time_to_90_s", "train_s", "step_ms", "peak_memory_mb")
_DEFAULT_CONF, _DEFAULT_IOU = 0.25, 0.7  # Ultralytics' own, for the one of the two that is not searched


class TrialPruned(BaseException):
    """The driver has given this trial up. Like an interruption it goes through everything that outlives errors."""


@dataclass
class _Course:
    """How far a trial has come, what it tells, and where it waits or ends."""

    trial: TrialPlan
    report: Report
    inbox: Inbox
    machine: Machine
    costs: dict[str, float] = field(default_factory=dict)
    by_seed: list[dict[str, float]] = field(default_factory=list)
    latest: dict[str, float] = field(default_factory=dict)
    epochs_done: int = 0

    def epoch(self, values: dict[str, Any]) -> None:
        """Tell of an epoch, counted through all seeds."""
        self.epochs_done = len(self.by_seed) * self.trial.plan.epochs + int(values["epoch"])
        self.latest = {keys.sanitise(values["metric"]): values["value"]} if values["metric"] else {}
        n_epochs = len(self.trial.all_seeds) * self.trial.plan.epochs
        self.report({**values, "epoch": self.epochs_done, "epochs": n_epochs})

    def check(self) -> None:
        """End the trial if the driver says so."""
        if self.inbox.stop:
            raise TrialPruned

    def after_batch(self) -> None:
        """End the trial if the driver says so; wait while another one measures."""
        self.check()
        self.machine.give_way()

    def values(self) -> dict[str, float]:
        """Return what is known: costs, and means over the seeds that are done; before the first, its latest epoch."""
        return {**self.costs, **(mean_values(self.by_seed) or self.latest)}


def run_trial(
    trial: TrialPlan, *, run: TrackedRun, directory: Path, shared: Path, report: Report, inbox: Inbox, machine: Machine
) -> dict[str, Any]:
    """Do a trial, log it into `run` and return its result as JSON-able data.

    Args:
        trial: What to do.
        run: The trial's open run; that of its first training as well.
        directory: The trial's own directory; further seeds are trained in `seed-<n>` below.
        shared: Where files that several trials use are kept.
        report: Called after every epoch as `training.train.train` does, with epochs counted through all seeds; with
            `measured` when costs are known; with `seed` (its place), `value` and `values` after each training.
        inbox: What the driver says meanwhile.
        machine: This process' place among the others of this machine.

    Returns:
        What `train` returns for the first seed, and `values` (every metric, means over seeds), `by_seed` (the same of
        each), `trainings` (folders below `directory`) and `epochs_done`. Of a trial that was given up: `status`
        `pruned`, `values` as far as they are known, `trainings` that are whole, and `epochs_done`.
    """
    course = _Course(trial, report, inbox, machine)
    first: dict[str, Any] = {}
    status = "finished"
    try:
        plan, dataset = _prepare(course, run, directory)
        for place, seed in enumerate(trial.all_seeds):
            course.check()
            result = _train_seed(place, replace(plan, seed=seed), dataset, course, run, directory, shared)
            first = first or result
            course.by_seed.append(result["values"])
            report({"seed": place, "value": _headline(result), "values": result["values"]})
    except TrialPruned:
        status = "pruned"
    if len(course.by_seed) > 1:
        run.log_metrics({f"mean/{name}": value for name, value in mean_values(course.by_seed).items()})
    return {
        **(first if status == "finished" else {}),
        "status": status,
        "values": course.values(),
        "by_seed": course.by_seed,
        "trainings": _folders(trial.all_seeds[: len(course.by_seed)]),
        "epochs_done": course.epochs_done,
    }


def values_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a training says of itself, by the keys that its run logs."""
    found = {f"final/{name}": value for name, value in result["final"].items()}
    found |= per_class_metrics("final", result["measured"]["val"]["per_class"])
    if test := result["measured"].get("test"):
        found |= {f"test/{name}": value for name, value in test["values"].items()}
        found |= per_class_metrics("test", test["per_class"], most=keys.MAX_CLASSES_ON_TEST)
    found |= {name: result[name] for name in _COPIED if name in result}
    n_parameters = result.get("parameters_trainable", 0) + result.get("parameters_frozen", 0)
    return found | ({"parameters_m": n_parameters / 1e6} if n_parameters else {})


def mean_values(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of the values that every seed has."""
    common = set.intersection(*map(set, by_seed)) if by_seed else set()
    return {
        name: fmean(values[name] for values in by_seed) for name in (by_seed[0] if by_seed else ()) if name in common
    }


def _prepare(course: _Course, run: TrackedRun, directory: Path) -> tuple[Plan, Dataset]:
    """Return the training of the model as pruned, and its data; tell the costs, for the driver to rule on."""
    trial, plan = course.trial, course.trial.plan
    dataset = localise(load_dataset(plan.data, task=plan.task), directory)
    if not (trial.prune or trial.costs):
        return plan, dataset
    start = starting_weights(plan.model, dataset, directory / "start.pt", seed=plan.seed)
    if trial.prune:
        start = prune_start(start, plan, dataset, trial.prune, directory / "pruned", run=run)
        plan = replace(plan, model=str(start))
    if trial.costs:
        folder = directory / "exported"
        course.costs = measure_costs(start, plan, dataset, folder, runs=trial.runs, run=run, machine=course.machine)
        course.report({"measured": course.costs})
        course.inbox.wait(ANSWER_S)
    return plan, dataset


def _train_seed(
    place: int, plan: Plan, dataset: Dataset, course: _Course, run: TrackedRun, directory: Path, shared: Path
) -> dict[str, Any]:
    """Train one seed, the first one in the trial's own run; return its result with `values`."""
    if place == 0:
        return _train(run, plan=plan, dataset=dataset, course=course, directory=directory, shared=shared)
    folder = directory / f"seed-{plan.seed}"
    work = partial(_train, plan=plan, dataset=dataset, course=course, directory=folder, shared=shared)
    return in_run_below(run, folder, seed=plan.seed, work=work, report=course.report, ending=TrialPruned)


def _train(
    run: TrackedRun, *, plan: Plan, dataset: Dataset, course: _Course, directory: Path, shared: Path
) -> dict[str, Any]:
    result = train(
        plan, run=run, directory=directory, shared=shared, report=course.epoch, after_batch=course.after_batch
    )
    point = _operating_point(course.trial, plan, dataset, directory)
    run.log_metrics(point)
    return {**result, "values": values_of(result) | point}


def _operating_point(trial: TrialPlan, plan: Plan, dataset: Dataset, directory: Path) -> dict[str, float]:
    """Return the best thresholds of a trained model and what they score on val, as `op/…`; nothing unless asked."""
    if trial.conf is None and trial.iou is None:
        return {}
    point = best_operating_point(
        str(directory / "train" / "weights" / "best.pt"),
        dataset,
        conf=trial.conf or (_DEFAULT_CONF, _DEFAULT_CONF),
        iou=trial.iou or (_DEFAULT_IOU, _DEFAULT_IOU),
        objective=trial.op_objective,
        imgsz=plan.imgsz,
        batch=plan.batch,
        device=plan.device,
        directory=directory / "operating_point",
        arguments=plan.arguments,
    )
    return {f"op/{name}": value for name, value in point.items()}


def _headline(result: Mapping[str, Any]) -> float:
    return float(result["final"]["top1" if result["task"] == "classify" else "mAP50-95"])


def _folders(seeds: Sequence[int]) -> list[str]:
    return ["." if place == 0 else f"seed-{seed}" for place, seed in enumerate(seeds)]
