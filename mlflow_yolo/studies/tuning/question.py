"""What a search asks, checked whole before anything is trained or written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_yolo.blocks import parse_freeze, parse_seeds
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.arguments import (
    check_arguments,
    check_every_n_steps,
    check_imgsz,
    check_optimizer,
    check_positive,
)
from mlflow_yolo.models.checkpoint import Model, read_model
from mlflow_yolo.models.data import check_task, default_imgsz
from mlflow_yolo.studies.tuning.objective import (
    Constraint,
    Goal,
    known_metrics,
    needs_costs,
    parse_constraints,
    parse_objective,
)
from mlflow_yolo.studies.tuning.search import make_pruner, make_sampler
from mlflow_yolo.studies.tuning.space import Space, parse_space
from mlflow_yolo.studies.tuning.trial_plan import TrialPlan
from mlflow_yolo.tracking.maps.schedule import check_interval
from mlflow_yolo.training.plan import Plan
from mlflow_yolo.training.strategies import check_lr_decay, stages_of

REPLAYED_TASKS = ("detect", "segment")
"""Tasks whose confidence and IoU are looked up after training."""

_OWN = (
    *("model", "freeze", "lr0", "optimizer", "imgsz", "epochs", "batch", "warmup_epochs"),
    *("strategy", "lr_decay", "prune"),
)
"""Dimensions that a plan has a place of its own for; all others are Ultralytics arguments."""


@dataclass(frozen=True)
class TuneQuestion:
    """The parameters of `tune`, as the user gave them.

    Attributes:
        data: An embedded dataset, a data.yaml or a classification folder.
        model: A checkpoint, a yaml or a name; the space may name further ones.
        space: The search space, see `studies.tuning.space`.
        objective: Comma-separated metrics to be best in; `auto` for what the task is judged by.
        constraints: Comma-separated bounds that a trial must keep.
        sampler: One of `search.SAMPLERS`.
        pruner: One of `search.PRUNERS`, or `auto`.
        seeds: Comma-separated seeds that every trial is trained with.
        freeze: Frozen blocks where the space does not say.
        strategy: How frozen blocks come to train where the space does not say.
        lr_decay: Layer-wise decay of the learning rate where the space does not say.
        epochs: Epochs of a training.
        imgsz: Input size in pixels; None takes 128 for the embedded digits, else 640.
        batch: Images a batch.
        device: The device that a trial uses, as it sees it (see `where`).
        optimizer: An explicit optimizer.
        lr0: Initial learning rate.
        warmup_epochs: Epochs until the learning rate reaches lr0.
        statistics: `off`, `default` or `all`.
        every_n_steps: Sample block statistics at every n-th optimizer step; None for what `statistics` says.
        maps: Epochs between two sets of maps; `off`, or None for what 3 % of the time allow.
        trust: Load checkpoints that name foreign classes.
        arguments: Further Ultralytics arguments.
    """

    data: str
    model: str
    space: str
    objective: str
    constraints: str
    sampler: str
    pruner: str
    seeds: str
    freeze: str
    strategy: str
    lr_decay: float
    epochs: int
    imgsz: int | None
    batch: int
    device: str
    optimizer: str
    lr0: float
    warmup_epochs: float
    statistics: str
    every_n_steps: int | None = None
    maps: int | str | None = None
    trust: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckedTune:
    """A search that can be made.

    Attributes:
        given: The question as it was given.
        dataset: The data.
        space: What is searched.
        goals: What it is searched for.
        constraints: What a trial must keep.
        seeds: Seeds of every trial.
        defaults: The value of every dimension where nothing is searched.
        costs: Whether latency and size are measured.
        config: What identifies the question, as JSON-able data.
    """

    given: TuneQuestion
    dataset: Dataset
    space: Space
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    seeds: tuple[int, ...]
    defaults: Mapping[str, Any]
    costs: bool
    config: dict[str, Any]

    @property
    def reports(self) -> bool:
        """Whether accuracy during a training stands for what is searched for, so that a pruner can judge by it."""
        return _is_accuracy(self.goals)

    @property
    def pruner(self) -> str:
        """The pruner: the one named, or for `auto` the median where there is something to judge by."""
        if self.given.pruner != "auto":
            return self.given.pruner
        return "median" if self.reports else "none"

    def plan(self, values: Mapping[str, Any], *, seeds: tuple[int, ...] | None = None) -> TrialPlan:
        """Return what a trial does.

        Args:
            values: The values of the space's dimensions.
            seeds: Instead of the question's own.
        """
        return _trial_plan(self, {**self.defaults, **values}, seeds or self.seeds)


def check_tune(question: TuneQuestion) -> CheckedTune:
    """Return the question ready to be run.

    Raises:
        InputError: The first thing in it that cannot work, with its remedy.
    """
    check_positive(epochs=question.epochs, batch=question.batch)
    check_every_n_steps(question.every_n_steps)
    check_interval(question.maps)
    check_lr_decay(question.lr_decay)
    check_arguments({"lr0": question.lr0, "warmup_epochs": question.warmup_epochs, **question.arguments})
    imgsz = default_imgsz(question.data) if question.imgsz is None else check_imgsz(question.imgsz)
    seeds = parse_seeds(question.seeds)
    base = read_model(question.model, trust=question.trust)
    space = parse_space(question.space, model=question.model, trust=question.trust)
    dataset = load_dataset(question.data, task=base.task)
    _check_tasks(base, dataset, space)
    defaults = {
        **question.arguments,
        "freeze": _depth(question.freeze, base),
        "strategy": question.strategy,
        "lr_decay": question.lr_decay,
        "epochs": question.epochs,
        "imgsz": imgsz,
        "batch": question.batch,
        "optimizer": check_optimizer(question.optimizer),
        "lr0": question.lr0,
        "warmup_epochs": question.warmup_epochs,
        "prune": 0.0,
        **({"model": next(iter(space.models))} if "model" in space else {}),
    }
    known = known_metrics(base.task, dataset.names, has_test="test" in dataset.splits, replayed=space.replayed)
    goals = parse_objective(_objective(question, base), known)
    constraints = parse_constraints(question.constraints, known)
    if question.pruner not in ("auto", "none") and not _is_accuracy(goals):
        raise ArgumentError(
            f"pruner={question.pruner} judges by accuracy during the training, which is not what objective="
            f"{question.objective} asks for. Use pruner=none."
        )
    checked = CheckedTune(
        given=question,
        dataset=dataset,
        space=space,
        goals=goals,
        constraints=constraints,
        seeds=seeds,
        defaults=defaults,
        costs=needs_costs(goals, constraints),
        config={},
    )
    make_sampler(question.sampler, seed=seeds[0], space=space, n_goals=len(goals))
    make_pruner(checked.pruner, epochs=question.epochs, n_seeds=len(seeds), n_goals=len(goals))
    checked.config.update(_config(checked))
    _check_corners(checked)
    return checked


def _trial_plan(checked: CheckedTune, values: Mapping[str, Any], seeds: tuple[int, ...]) -> TrialPlan:
    question, replayed, model = checked.given, checked.space.replayed, checked.space.model(values)
    stages = stages_of(
        values["strategy"],
        epochs=int(values["epochs"]),
        freeze=tuple(range(int(values["freeze"]))),
        lr0=float(values["lr0"]),
        warmup_epochs=float(values["warmup_epochs"]),
    )
    plan = Plan(
        model=model.source,
        data=question.data,
        task=model.task,
        stages=stages,
        seed=seeds[0],
        imgsz=int(values["imgsz"]),
        batch=int(values["batch"]),
        device=question.device,
        optimizer=str(values["optimizer"]),
        statistics=question.statistics,
        every_n_steps=question.every_n_steps,
        maps=check_interval(question.maps),
        arguments={name: value for name, value in values.items() if name not in _OWN},
        lr_decay=float(values["lr_decay"]),
    )
    return TrialPlan(
        plan=plan,
        seeds=seeds[1:],
        prune=float(values["prune"]),
        costs=checked.costs,
        conf=replayed.get("conf"),
        iou=replayed.get("iou"),
    )


def _objective(question: TuneQuestion, base: Model) -> str:
    if question.objective != "auto":
        return question.objective
    return "final/top1" if base.task == "classify" else "final/mAP50-95"


def _is_accuracy(goals: tuple[Goal, ...]) -> bool:
    words = goals[0].metric.partition("/")
    return len(goals) == 1 and goals[0].direction == "maximize" and words[0] in ("final", "test", "op")


def _check_tasks(base: Model, dataset: Dataset, space: Space) -> None:
    for model in (base, *space.models.values()):
        check_task(model.task, dataset)
    if space.replayed and base.task not in REPLAYED_TASKS:
        name = next(iter(space.replayed))
        raise ArgumentError(f"{name} is no dimension of {base.task}: it has no detections. Leave {name} out of space.")


def _depth(freeze: str, model: Model) -> int:
    """Return the number of leading blocks that a word freezes."""
    found = parse_freeze(freeze, model.blocks)
    if len(found) > 2 or found[-1].depth is None:
        raise ArgumentError(f"freeze={freeze} is no single depth. Use one number or word here, and ranges in space.")
    return found[-1].depth


def _check_corners(checked: CheckedTune) -> None:
    """Build the plans at the ends of every dimension, so that what cannot be trained is said before anything is."""
    for dimension in checked.space.dimensions:
        ends = dimension.choices or (dimension.low, dimension.high)
        for value in ends:
            plan = checked.plan({dimension.name: dimension.nearest(value)}).plan
            check_arguments({"lr0": plan.stages[0].lr0, **plan.arguments})
            check_optimizer(plan.optimizer)


def _config(checked: CheckedTune) -> dict[str, Any]:
    """Return what identifies the question: a trial's plan without what varies, and what is searched for in which space.

    How many trials are made is no part of it, so that a search can be continued.
    """
    plan = checked.plan({}).to_json()
    elsewhere = ("model", "data", "seed", "device", "maps")
    question = checked.given
    return {
        "plan": {name: value for name, value in plan["plan"].items() if name not in elsewhere},
        "models": {word: model.sha256[:16] or model.source for word, model in checked.space.models.items()},
        "dataset": checked.dataset.fingerprint,
        "space": checked.space.to_json(),
        "objective": [f"{goal.metric}:{goal.direction}" for goal in checked.goals],
        "constraints": [constraint.text for constraint in checked.constraints],
        "sampler": question.sampler,
        "pruner": question.pruner,
        "seeds": list(checked.seeds),
    }
