"""When frozen blocks come to train: schedules counted by hand, and options that give the same stages again."""

from itertools import pairwise
from typing import Any

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.training.plan import Plan, Stage
from mlflow_yolo.training.strategies import (
    STRATEGIES,
    check_lr_decay,
    check_second_stage,
    options_of,
    schedule_params,
    stages_of,
    unfreeze_interval,
)


def gradual(epochs: int, n_frozen: int, every: int | None = None) -> Stage:
    (stage,) = stages_of(
        "gradual", epochs=epochs, freeze=tuple(range(n_frozen)), lr0=0.01, warmup_epochs=0.5, unfreeze_every=every
    )
    return stage


def test_a_single_stage_never_unfreezes() -> None:
    assert stages_of("single", epochs=9, freeze=(0, 1), lr0=0.01, warmup_epochs=0.5) == (Stage(9, (0, 1), 0.01, 0.5),)


def test_two_stages_share_the_epochs_one_to_two_and_the_second_is_slower() -> None:
    first, second = stages_of("two_stage", epochs=9, freeze=(0, 1), lr0=0.01, warmup_epochs=0.5, warmup_epochs2=0.25)

    assert first == Stage(3, (0, 1), 0.01, 0.5)
    assert (second.epochs, second.freeze, second.warmup_epochs, second.unfreeze) == (6, (), 0.25, ())
    assert second.lr0 == pytest.approx(0.001)


def test_two_stages_can_be_set_apart() -> None:
    stages = stages_of("two_stage", epochs=9, freeze=(), lr0=0.01, warmup_epochs=0, epochs1=2, epochs2=5, lr02=0.5)

    assert [(stage.epochs, stage.lr0) for stage in stages] == [(2, 0.01), (5, 0.5)]


@pytest.mark.parametrize(
    ("epochs", "n_frozen", "every", "expected"),
    [
        # a quarter of 12 is 3: groups begin after 3, 6 and 9 epochs, and the last 3 epochs train everything
        (12, 6, None, ((3, (4, 5)), (6, (2, 3)), (9, (0, 1)))),
        # what cannot be shared out evenly goes to the deeper groups
        (5, 11, None, ((1, (8, 9, 10)), (2, (5, 6, 7)), (3, (2, 3, 4)), (4, (0, 1)))),
        (12, 4, 4, ((4, (2, 3)), (8, (0, 1)))),
        (12, 3, 6, ((6, (0, 1, 2)),)),  # half of the epochs: one group
        (100, 2, 1, ((1, (1,)), (2, (0,)))),  # no more groups than blocks
        (2, 3, None, ((1, (0, 1, 2)),)),
        (11, 4, 4, ((4, (0, 1, 2, 3)),)),  # a group after 8 would train 3 epochs only, less than the one before
        (12, 0, None, ()),
    ],
)
def test_groups_begin_at_even_intervals_the_deepest_first(
    epochs: int, n_frozen: int, every: int | None, expected: tuple[Any, ...]
) -> None:
    stage = gradual(epochs, n_frozen, every)

    assert (stage.epochs, stage.freeze, stage.unfreeze) == (epochs, tuple(range(n_frozen)), expected)


@pytest.mark.parametrize("epochs", range(2, 40))
@pytest.mark.parametrize("n_frozen", [1, 2, 7, 23])
def test_every_frozen_block_unfreezes_once_and_everything_trains_as_long_as_any_group_before(
    epochs: int, n_frozen: int
) -> None:
    for every in (None, *range(1, epochs // 2 + 1)):
        schedule = gradual(epochs, n_frozen, every).unfreeze
        blocks = [block for _, group in schedule for block in sorted(group, reverse=True)]
        assert blocks == list(range(n_frozen))[::-1]
        starts = [0, *(epoch for epoch, _ in schedule), epochs]
        lengths = [b - a for a, b in pairwise(starts)]
        assert set(lengths[:-1]) == {unfreeze_interval(epochs, every)}
        assert lengths[-1] >= lengths[0]
        sizes = [len(group) for _, group in schedule]
        assert sorted(sizes) == sorted(sizes, reverse=True) or max(sizes) - min(sizes) == 1


def test_blocks_that_are_not_the_first_unfreeze_from_their_deepest() -> None:
    (stage,) = stages_of("gradual", epochs=6, freeze=(20, 21, 22, 23), lr0=0.1, warmup_epochs=0, unfreeze_every=2)

    assert stage.unfreeze == ((2, (22, 23)), (4, (20, 21)))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"strategy": "three"}, ["strategy=three", "gradual"]),
        ({"strategy": "gradual", "epochs": 1}, ["epochs=1"]),
        ({"strategy": "gradual", "unfreeze_every": 0}, ["unfreeze_every=0", "1 to 4"]),
        ({"strategy": "gradual", "unfreeze_every": 5}, ["unfreeze_every=5", "epochs=9", "1 to 4"]),
    ],
)
def test_a_schedule_that_cannot_work_is_named_in_one_line(given: dict[str, Any], named: list[str]) -> None:
    usual: dict[str, Any] = {"epochs": 9, "freeze": (0, 1), "lr0": 0.01, "warmup_epochs": 0.5}

    with pytest.raises(ArgumentError) as caught:
        stages_of(**usual | given)

    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_decay_that_is_no_part_is_named(value: float) -> None:
    with pytest.raises(ArgumentError, match="lr_decay="):
        check_lr_decay(value)


@pytest.mark.parametrize("value", [1e-6, 0.9, 1.0])
def test_a_decay_of_up_to_one_is_taken(value: float) -> None:
    assert check_lr_decay(value) == value


def test_values_of_the_second_stage_are_named_as_they_were_given() -> None:
    with pytest.raises(ArgumentError, match="lr02"):
        check_second_stage(lr02=-1.0, warmup_epochs2=0.0)
    check_second_stage(lr02=None, warmup_epochs2=0.0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("every", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("epochs", [2, 7, 10, 50])
def test_options_give_the_same_stages_again(strategy: str, every: int | None, epochs: int) -> None:
    usual: dict[str, Any] = {"epochs": epochs, "freeze": (0, 1, 2, 3, 4), "lr0": 0.01, "warmup_epochs": 0.5}
    if every and every > epochs // 2:
        return
    stages = stages_of(strategy, **usual, warmup_epochs2=0.25, unfreeze_every=every)

    assert stages_of(**{**usual, **options_of(stages)}) == stages
    assert options_of(stages)["strategy"] == strategy


def test_params_say_what_runs_are_compared_by() -> None:
    def params(strategy: str, **more: Any) -> dict[str, Any]:
        stages = stages_of(strategy, epochs=8, freeze=(0, 1), lr0=0.01, warmup_epochs=0)
        place = {"model": "m", "data": "d", "task": "detect", "seed": 0, "imgsz": 64, "batch": 4, "device": "cpu"}
        return schedule_params(strategy, Plan(**place, stages=stages, optimizer="SGD", **more))

    assert params("single") == {"strategy": "single", "lr_decay": 1.0}
    assert params("two_stage") == {"strategy": "two_stage", "lr_decay": 1.0, "lr02": 0.001}
    assert params("gradual", lr_decay=0.9) == {"strategy": "gradual", "lr_decay": 0.9, "unfreeze_every": 2}
