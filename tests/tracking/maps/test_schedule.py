"""Maps are made before the first epoch, after the last, and between as often as the budget allows."""

import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.tracking.maps.schedule import BUDGET, SETS, check_interval, interval, is_due, n_sets


def due(n_epochs: int, every: int) -> list[int]:
    """Return the steps of a training that have maps; 0 is its start."""
    return [epoch for epoch in range(n_epochs + 1) if is_due(epoch, every, is_last=epoch == n_epochs)]


@pytest.mark.parametrize(("every", "epochs"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (3, [0, 3, 5]), (9, [0, 5])])
def test_the_start_and_the_last_epoch_always_have_maps(every: int, epochs: list[int]) -> None:
    assert due(5, every) == epochs


@pytest.mark.parametrize("n_epochs", range(1, 12))
def test_sets_are_counted_as_they_fall_due(n_epochs: int) -> None:
    assert [n_sets(n_epochs, every) for every in range(1, 15)] == [len(due(n_epochs, every)) for every in range(1, 15)]


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7, 50, 300, 1000])
@pytest.mark.parametrize("cost_s", [0.0, 0.01, 0.4, 2.0, 60.0])
def test_all_sets_together_stay_within_the_budget_and_are_as_many_as_that_allows(n_epochs: int, cost_s: float) -> None:
    every = interval(n_epochs=n_epochs, cost_s=cost_s, epoch_s=10.0)

    def fits(candidate: int) -> bool:
        n = len(due(n_epochs, candidate))
        return n <= SETS and n * cost_s <= BUDGET * n_epochs * 10.0

    assert every & (every - 1) == 0  # a power of two
    assert fits(every) or due(n_epochs, every) == [0, n_epochs]
    assert every == 1 or not fits(every // 2)


def test_the_epochs_of_a_slow_training_are_among_those_of_a_fast_one() -> None:
    fast, slow = (due(100, interval(n_epochs=100, cost_s=cost_s, epoch_s=10.0)) for cost_s in (0.1, 4.0))

    assert len(slow) < len(fast)
    assert set(slow) < set(fast)


@pytest.mark.parametrize(
    ("given", "every"), [(None, None), (True, None), ("auto", None), (False, 0), ("off", 0), (0, 0), (3, 3), ("5", 5)]
)
def test_what_may_be_asked_for(given: int | str | None, every: int | None) -> None:
    assert check_interval(given) == every


@pytest.mark.parametrize("given", [-1, "-2", 2.5, "1.5", "often", float("nan")])
def test_anything_else_is_named_with_its_remedy(given: int | str) -> None:
    with pytest.raises(ArgumentError, match=f"log_maps={given} .* auto, or off"):
        check_interval(given, name="log_maps")
