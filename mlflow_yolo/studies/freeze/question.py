"""What a freeze ablation asks, checked whole before anything is trained or written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_yolo.blocks import Freeze, parse_freeze, parse_seeds
from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.models.arguments import (
    check_arguments,
    check_device,
    check_every_n_steps,
    check_imgsz,
    check_optimizer,
    check_positive,
)
from mlflow_yolo.models.checkpoint import Model, read_model
from mlflow_yolo.models.data import check_task, default_imgsz
from mlflow_yolo.studies.study import Trial
from mlflow_yolo.tracking.maps.schedule import check_interval
from mlflow_yolo.training.plan import Plan, Stage
from mlflow_yolo.training.strategies import (
    check_lr_decay,
    check_second_stage,
    check_strategy,
    schedule_params,
    stages_of,
)


@dataclass(frozen=True)
class FreezeQuestion:
    """The parameters of `freeze_ablation`, as the user gave them.

    Attributes:
        data: An embedded dataset, a data.yaml or a classification folder.
        model: A checkpoint, a yaml or a name.
        freeze: Comma-separated depths and words.
        seeds: Comma-separated whole numbers; the outer loop.
        strategy: `single`: what is frozen stays so. `two_stage`: then everything trains, from the first stage's best.
            `gradual`: groups of blocks begin to train one after the other, the deepest first.
        epochs: Epochs of a single stage.
        epochs1: Epochs of stage 1 (two_stage); None takes a third of `epochs`, at least one.
        epochs2: Epochs of stage 2 (two_stage); None takes the rest of `epochs`, at least one.
        imgsz: Input size in pixels; None takes 128 for the embedded digits, else 640.
        batch: Images a batch.
        device: `auto`, `cpu`, `0`, `mps`.
        optimizer: An explicit optimizer.
        lr0: Initial learning rate (of stage 1).
        lr02: Initial learning rate of stage 2; None takes a tenth of `lr0`.
        warmup_epochs: Warm-up of (the first) stage, epochs.
        warmup_epochs2: Warm-up of stage 2, epochs.
        statistics: `off`, `default` or `all`.
        every_n_steps: Sample block statistics at every n-th optimizer step; None for what `statistics` says.
        maps: Epochs between two sets of maps of where the model looks; `off`, or None for what 3 % of the time allow.
        trust: Load a checkpoint that names foreign classes.
        arguments: Further Ultralytics arguments.
        unfreeze_every: Epochs between two groups (gradual); None takes a quarter of `epochs`, at least one.
        lr_decay: Factor of the learning rate from each block to the one before it; 1 is the same rate everywhere.
    """

    data: str
    model: str
    freeze: str
    seeds: str
    strategy: str
    epochs: int
    epochs1: int | None
    epochs2: int | None
    imgsz: int | None
    batch: int
    device: str
    optimizer: str
    lr0: float
    lr02: float | None
    warmup_epochs: float
    warmup_epochs2: float
    statistics: str
    every_n_steps: int | None = None
    maps: int | str | None = None
    trust: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unfreeze_every: int | None = None
    lr_decay: float = 1.0


@dataclass(frozen=True)
class CheckedQuestion:
    """A question that can be answered.

    Attributes:
        given: The question as it was given.
        dataset: The data.
        model: The model.
        freezes: The configurations, the baseline first.
        seeds: The seeds.
        trials: One per seed and configuration, seeds outermost.
        config: What identifies the question, as JSON-able data.
    """

    given: FreezeQuestion
    dataset: Dataset
    model: Model
    freezes: tuple[Freeze, ...]
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    config: dict[str, Any]


def check_question(question: FreezeQuestion) -> CheckedQuestion:
    """Return the question ready to be run.

    Raises:
        InputError: The first thing in it that cannot work, with its remedy.
    """
    check_strategy(question.strategy)
    check_positive(epochs=question.epochs, epochs1=question.epochs1, epochs2=question.epochs2, batch=question.batch)
    check_every_n_steps(question.every_n_steps)
    maps = check_interval(question.maps)
    imgsz = default_imgsz(question.data) if question.imgsz is None else check_imgsz(question.imgsz)
    optimizer = check_optimizer(question.optimizer)
    device = check_device(question.device)
    arguments = check_arguments(question.arguments)
    check_arguments({"lr0": question.lr0, "warmup_epochs": question.warmup_epochs})
    check_second_stage(lr02=question.lr02, warmup_epochs2=question.warmup_epochs2)
    lr_decay = check_lr_decay(question.lr_decay)
    seeds = parse_seeds(question.seeds)
    model = read_model(question.model, trust=question.trust)
    freezes = parse_freeze(question.freeze, model.blocks)
    dataset = load_dataset(question.data, task=model.task)
    check_task(model.task, dataset)

    def plan(freeze: Freeze, seed: int) -> Plan:
        return Plan(
            model=model.source,
            data=question.data,
            task=model.task,
            stages=_stages(question, freeze),
            seed=seed,
            imgsz=imgsz,
            batch=question.batch,
            device=device,
            optimizer=optimizer,
            statistics=question.statistics,
            every_n_steps=question.every_n_steps,
            maps=maps,
            arguments=arguments,
            lr_decay=lr_decay,
        )

    trials = tuple(
        Trial(
            key=f"freeze-{freeze.word}_seed-{seed}",
            name=f"freeze={freeze.word} seed={seed}",
            params={
                "freeze": freeze.param,
                **({} if freeze.depth is not None else {"n_frozen_blocks": len(freeze.blocks)}),
                "seed": seed,
                "lr0": question.lr0,
                **schedule_params(question.strategy, planned),
            },
            plan=planned.to_json(),
        )
        for seed in seeds
        for freeze in freezes
        for planned in (plan(freeze, seed),)
    )
    config = _config(question, dataset, model, freezes, trials)
    return CheckedQuestion(question, dataset, model, freezes, seeds, trials, config)


def _stages(question: FreezeQuestion, freeze: Freeze) -> tuple[Stage, ...]:
    """Return the stages of one configuration; the baseline gets the same stages, with nothing frozen in any."""
    return stages_of(
        question.strategy,
        epochs=question.epochs,
        freeze=freeze.blocks,
        lr0=question.lr0,
        warmup_epochs=question.warmup_epochs,
        epochs1=question.epochs1,
        epochs2=question.epochs2,
        lr02=question.lr02,
        warmup_epochs2=question.warmup_epochs2,
        unfreeze_every=question.unfreeze_every,
    )


def _config(
    question: FreezeQuestion, dataset: Dataset, model: Model, freezes: tuple[Freeze, ...], trials: tuple[Trial, ...]
) -> dict[str, Any]:
    """Return what identifies the question: the plans, the data by its fingerprint, the model by its bytes."""
    elsewhere = ("stages", "seed", "model", "data", "device", "maps")
    plan = {key: value for key, value in trials[0].plan.items() if key not in elsewhere}
    stages = [{**stage, "freeze": None} for stage in trials[0].plan["stages"]]
    return {
        **plan,
        "model": model.sha256[:16] or model.source,
        "dataset": dataset.fingerprint,
        "strategy": question.strategy,
        "unfreeze_every": question.unfreeze_every,
        "stages": stages,
        "freeze": [freeze.word for freeze in freezes],
        "seeds": list({trial.params["seed"]: None for trial in trials}),
    }
