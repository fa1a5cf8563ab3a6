import math

import pytest

from mlflow_yolo.blocks import Block
from mlflow_yolo.statistics.gradient_signal import BlockSignal
from mlflow_yolo.training.block_evidence import Evidence
from mlflow_yolo.training.block_need import (
    BlockAdvice,
    best_depth,
    block_rows,
    depth_scores,
    little_need,
    needs_of,
)

BLOCKS = [
    Block(0, "Conv", "backbone"),
    Block(1, "C3k2", "backbone"),
    Block(2, "Concat", "neck"),
    Block(3, "Detect", "head"),
]


def rows_of(*needs: float | None) -> list[BlockAdvice]:
    """Return blocks with these needs, and a head that needs the most."""
    blocks = [BlockAdvice(i, f"{i:02d}-Conv", "backbone", need=need) for i, need in enumerate(needs)]
    return [*blocks, BlockAdvice(len(needs), "Detect", "head", need=1000.0)]


def evidence(signals: dict[int, tuple[float, float]], drift: dict[int, float]) -> Evidence:
    return Evidence({index: BlockSignal(*values) for index, values in signals.items()}, drift, 8, 128)


def test_without_source_data_a_need_is_the_gradient_in_units_of_its_noise() -> None:
    rows = block_rows(BLOCKS, evidence({0: (2.0, 9.0), 1: (0.1, 0.25), 3: (0.5, 4.0)}, {0: 0.2}), None)

    assert [row.need for row in rows] == [3.0, 0.5, None, 2.0]
    assert [row.relative_gradient for row in rows] == [2.0, 0.1, None, 0.5]
    assert [row.bn_drift for row in rows] == [0.2, None, None, None]
    assert [(row.name, row.part) for row in rows[:1]] == [("00-Conv", "backbone")]


def test_with_source_data_a_need_is_the_gradient_in_units_of_that_on_the_source() -> None:
    target, source = (
        evidence({0: (2.0, 9.0), 1: (0.1, 4.0)}, {0: 0.2}),
        evidence({0: (0.5, 1.0), 1: (0.2, 1.0)}, {0: 0.1}),
    )

    rows = block_rows(BLOCKS, target, source)
    assert [row.need for row in rows] == [4.0, 0.5, None, None]
    assert [row.source_gradient for row in rows] == [0.5, 0.2, None, None]
    assert rows[0].source_drift == 0.1


def test_what_is_not_finite_is_not_known() -> None:
    target = evidence({0: (math.inf, 9.0), 1: (0.1, math.nan)}, {0: math.inf})
    source = evidence({0: (1.0, 1.0), 1: (0.0, 1.0)}, {})

    assert [row.need for row in block_rows(BLOCKS, target, None)] == [3.0, None, None, None]
    assert [row.need for row in block_rows(BLOCKS, target, source)] == [None, None, None, None]
    assert block_rows(BLOCKS, target, None)[0].bn_drift is None


def test_little_is_two_or_half_the_average_without_the_head() -> None:
    assert little_need(rows_of(1.0, 3.0)) == 2.0
    assert little_need(rows_of(2.0, None, 18.0)) == 5.0
    assert little_need(rows_of()) == 2.0


def test_scores_by_hand() -> None:
    # The average is 8, little is 4.
    assert depth_scores(rows_of(1.0, None, 3.0, 20.0)) == (0.0, 3.0, 3.0, 4.0, -12.0)


def test_the_leading_blocks_that_need_little_are_frozen_and_a_needy_one_behind_them_is_not() -> None:
    assert best_depth(rows_of(1.0, 2.0, 1.5, 30.0, 2.0)) == 3


def test_a_needy_first_block_keeps_all_from_being_frozen() -> None:
    assert best_depth(rows_of(30.0, 1.0, 1.0, 1.0)) == 0


def test_one_needy_block_among_many_that_need_nothing_may_be_given_up() -> None:
    assert best_depth(rows_of(3.0, 0.5, 0.5, 0.5)) == 4


def test_data_like_those_of_the_training_leave_nothing_to_train_but_the_head() -> None:
    assert best_depth(rows_of(1.1, 0.9, 1.0, 1.0)) == 4


def test_blocks_without_weights_and_ties_choose_the_shallower_depth() -> None:
    assert best_depth(rows_of(1.0, None, 40.0)) == 1
    assert best_depth(rows_of(2.0, 2.0)) == 0


def test_nothing_known_is_no_reason_to_freeze() -> None:
    assert best_depth(rows_of(None, None)) == 0
    assert needs_of(rows_of(None, 1.0)) == [None, 1.0]


@pytest.mark.parametrize("scale", [2.0, 10.0])
def test_needs_that_are_all_larger_choose_the_same_depth(scale: float) -> None:
    needs = [10.0, 6.0, 60.0, 8.0]
    assert best_depth(rows_of(*[need * scale for need in needs])) == best_depth(rows_of(*needs)) == 2
