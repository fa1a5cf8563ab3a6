"""Arrays made of the tidy table, against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.figures.block_steps import (
    block_names,
    block_steps,
    frozen_blocks,
    gather,
    nonfinite_steps,
    within_epochs,
)

NAN = float("nan")
COLUMNS = ["epoch", "step", "block", "name", "kind", "statistic", "value"]


def frame_of(*rows: tuple[object, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"name": "category", "kind": "category", "statistic": "category"})


def l2(epoch: int, step: int, block: int, value: float) -> tuple[object, ...]:
    return (epoch, step, block, f"{block:02d}-Conv", "gradients", "l2", value)


def series(*values: float, per_epoch: int = 100) -> pd.DataFrame:
    """Return one block's value at every step, `per_epoch` steps to an epoch."""
    return frame_of(*(l2(1 + i // per_epoch, i % per_epoch, 0, value) for i, value in enumerate(values)))


def test_steps_stand_in_order_of_time_and_what_was_not_measured_is_nan() -> None:
    (table,) = block_steps(frame_of(l2(2, 0, 3, 5.0), l2(1, 7, 3, 2.0), l2(1, 7, 1, 1.0), l2(1, 0, 3, 4.0)))
    assert (table.kind, table.statistic) == ("gradients", "l2")
    assert list(zip(table.epochs.tolist(), table.steps.tolist(), strict=True)) == [(1, 0), (1, 7), (2, 0)]
    assert table.blocks.tolist() == [1, 3]
    np.testing.assert_array_equal(table.values, [[NAN, 4], [1, 2], [NAN, 5]])


def test_epoch_means_leave_out_steps_with_gradients_that_are_not_finite() -> None:
    frame = frame_of(
        *(
            l2(1, step, block, value)
            for step, row in enumerate([(1, 2), (30, NAN), (5, 8)])
            for block, value in enumerate(row)
        ),
        l2(2, 0, 0, 7.0),
        (1, 1, -1, "model", "global", "nonfinite_block", 1.0),
    )
    assert nonfinite_steps(frame) == [(1, 1, 1)]
    (table,) = block_steps(frame)
    epochs, means = table.epoch_means()
    assert epochs.tolist() == [1, 2]
    np.testing.assert_array_equal(means, [[3, 5], [7, NAN]])


def test_frozen_blocks_are_known_by_epoch_and_are_no_statistic() -> None:
    rows = [(epoch, 3, block, f"b{block}", "state", "frozen", 1.0) for epoch, block in ((1, 0), (2, 0), (1, 4))]
    frame = frame_of(*rows, (1, 3, -1, "model", "state", "n_steps", 4.0))
    assert frozen_blocks(frame) == {0: {1, 2}, 4: {1}}
    assert block_steps(frame) == []
    assert block_names(frame) == {0: "b0", 4: "b4"}


def test_few_steps_have_a_column_each() -> None:
    (table,) = block_steps(series(3, 1, 2))
    columns = gather(table, most=3)
    assert columns.first.tolist() == [0, 1, 2]
    assert columns.mean.ravel().tolist() == columns.low.ravel().tolist() == columns.high.ravel().tolist() == [3, 1, 2]


def test_many_steps_are_gathered_with_mean_smallest_and_largest() -> None:
    (table,) = block_steps(series(3, 1, 2, 6, 10, 10, 10))
    columns = gather(table, most=3)
    assert columns.first.tolist() == [0, 3, 6]
    assert columns.mean.ravel().tolist() == pytest.approx([2, 26 / 3, 10])
    assert columns.low.ravel().tolist() == [1, 6, 10]
    assert columns.high.ravel().tolist() == [3, 10, 10]


def test_infinite_values_show_only_where_a_column_has_no_finite_one() -> None:
    (table,) = block_steps(series(1, np.inf, np.inf, -np.inf, NAN, NAN))
    columns = gather(table, most=3)
    np.testing.assert_array_equal(columns.mean.ravel(), [1, np.inf, NAN])
    np.testing.assert_array_equal(columns.low.ravel(), [1, NAN, NAN])


@pytest.mark.parametrize("n_steps", [1, 3, 499, 500, 501, 10_000])
def test_there_are_never_more_columns_than_allowed_and_no_step_is_lost(n_steps: int) -> None:
    (table,) = block_steps(series(*range(n_steps)))
    columns = gather(table, most=500)
    sizes = np.diff(np.append(columns.first, n_steps))
    assert len(columns.first) <= 500
    assert float(columns.mean.ravel() @ sizes) == pytest.approx(n_steps * (n_steps - 1) / 2)


def test_within_epochs_spreads_the_samples_of_each_epoch_over_its_columns() -> None:
    (table,) = block_steps(series(1, 2, 3, 4, 50, per_epoch=4))
    epochs = np.array([1, 2, 3])
    np.testing.assert_array_equal(within_epochs(table, epochs, per_epoch=2), [[1.5, 3.5, 50, 50, NAN, NAN]])
    np.testing.assert_array_equal(within_epochs(table, epochs, per_epoch=1), [[2.5, 50, NAN]])
