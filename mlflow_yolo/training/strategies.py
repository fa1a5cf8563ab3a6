"""How frozen blocks come to train: never, all at once in a second stage, or group by group."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.models.arguments import check_arguments
from mlflow_yolo.training.plan import Plan, Stage

STRATEGIES = ("single", "two_stage", "gradual")


def stages_of(
    strategy: str,
    *,
    epochs: int,
    freeze: tuple[int, ...],
    lr0: float,
    warmup_epochs: float,
    epochs1: int | None = None,
    epochs2: int | None = None,
    lr02: float | None = None,
    warmup_epochs2: float = 0.0,
    unfreeze_every: int | None = None,
) -> tuple[Stage, ...]:
    """Return the stages of a training; with nothing frozen it gets the same stages, with nothing frozen in any.

    Args:
        strategy: `single`: what is frozen stays so. `two_stage`: then everything trains, from the best weights of the
            first stage. `gradual`: one stage in which groups of blocks begin to train, the deepest first.
        epochs: Epochs of `single` and `gradual`, and of both stages of `two_stage` where its own are not given.
        freeze: Indices of the blocks frozen at the start.
        lr0: Initial learning rate (of stage 1).
        warmup_epochs: Warm-up of (the first) stage, epochs.
        epochs1: Epochs of stage 1 (two_stage); None takes a third of `epochs`, at least one.
        epochs2: Epochs of stage 2 (two_stage); None takes the rest of `epochs`, at least one.
        lr02: Initial learning rate of stage 2 (two_stage); None takes a tenth of `lr0`.
        warmup_epochs2: Warm-up of stage 2 (two_stage), epochs.
        unfreeze_every: Epochs between two groups (gradual); None takes a quarter of `epochs`, at least one.

    Raises:
        ArgumentError: An unknown strategy, or a schedule in which nothing would ever unfreeze.
    """
    check_strategy(strategy)
    if strategy == "single":
        return (Stage(epochs, freeze, lr0, warmup_epochs),)
    if strategy == "gradual":
        every = unfreeze_interval(epochs, unfreeze_every)
        return (Stage(epochs, freeze, lr0, warmup_epochs, unfreeze=_schedule(freeze, epochs=epochs, every=every)),)
    first = epochs1 or max(1, epochs // 3)
    second = epochs2 or max(1, epochs - first)
    return Stage(first, freeze, lr0, warmup_epochs), Stage(second, (), lr02 or lr0 / 10, warmup_epochs2)


def options_of(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return the options with which `stages_of` gives these stages again, beside epochs, freeze, lr0 and warm-up."""
    if len(stages) == 1:
        schedule = stages[0].unfreeze
        return {"strategy": "gradual", "unfreeze_every": schedule[0][0]} if schedule else {"strategy": "single"}
    first, second = stages
    return {
        "strategy": "two_stage",
        "epochs1": first.epochs,
        "epochs2": second.epochs,
        "lr02": second.lr0,
        "warmup_epochs2": second.warmup_epochs,
    }


def unfreeze_interval(epochs: int, unfreeze_every: int | None = None) -> int:
    """Return the epochs between two groups of blocks: as given, else a quarter of all, at least one.

    Raises:
        ArgumentError: No group would begin to train, or none early enough to train as long as the ones before it.
    """
    if epochs < 2:
        raise ArgumentError(f"strategy=gradual unfreezes nothing in epochs={epochs}. Use 2 epochs or more.")
    if unfreeze_every is None:
        return max(1, epochs // 4)
    if not 1 <= unfreeze_every <= epochs // 2:
        raise ArgumentError(
            f"unfreeze_every={unfreeze_every} does not fit into epochs={epochs}. Use 1 to {epochs // 2}: half of them "
            "is one group, which then trains as long as the blocks before it."
        )
    return unfreeze_every


def check_strategy(strategy: str) -> None:
    """Raise ArgumentError for a strategy that does not exist."""
    if strategy not in STRATEGIES:
        raise ArgumentError(
            f"strategy={strategy} does not exist. Use {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}."
        )


def check_lr_decay(lr_decay: float) -> float:
    """Return the factor of the learning rate from block to block.

    Raises:
        ArgumentError: It is not above 0 and at most 1.
    """
    if not 0 < lr_decay <= 1:
        raise ArgumentError(
            f"lr_decay={lr_decay:g} is no factor from each block to the one before it. "
            "Use a number above 0 and at most 1, for example 0.9; 1 is the same rate everywhere."
        )
    return lr_decay


def check_second_stage(*, lr02: float | None, warmup_epochs2: float) -> None:
    """Hold the second stage's values to the bounds of the first's, and name them as the user does.

    Raises:
        ArgumentError: One of them is a value that Ultralytics refuses.
    """
    for own_name, name, value in (("lr02", "lr0", lr02), ("warmup_epochs2", "warmup_epochs", warmup_epochs2)):
        try:
            check_arguments({} if value is None else {name: value})
        except ArgumentError as error:
            raise ArgumentError(str(error).replace(name, own_name)) from error


def schedule_params(strategy: str, plan: Plan) -> dict[str, Any]:
    """Return the params that say how the blocks of a plan come to train, by plain names: what runs are compared by."""
    params: dict[str, Any] = {"strategy": strategy, "lr_decay": plan.lr_decay}
    if len(plan.stages) > 1:
        params["lr02"] = plan.stages[1].lr0
    if unfreeze := plan.stages[0].unfreeze:
        params["unfreeze_every"] = unfreeze[0][0]
    return params


def _schedule(freeze: tuple[int, ...], *, epochs: int, every: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return when which blocks begin to train: equal groups, `every` epochs apart, the first of them the deepest.

    There are as many groups as leave `every` epochs in which everything trains, and at most one a block. Where blocks
    cannot be shared out evenly the deeper groups get one more.
    """
    n_groups = min(len(freeze), epochs // every - 1)
    deepest_first = sorted(freeze, reverse=True)
    bounds = [-(-len(freeze) * group // n_groups) for group in range(n_groups + 1)] if n_groups else []
    groups = [tuple(sorted(deepest_first[a:b])) for a, b in pairwise(bounds)]
    return tuple((every * number, group) for number, group in enumerate(groups, start=1))
