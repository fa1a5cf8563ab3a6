import numpy as np

from mlflow_yolo.statistics.epoch import EpochStatistics, Grid


def make_grid() -> Grid:
    return Grid(
        kind="gradients",
        steps=np.array([0, 5, 9]),
        blocks=np.array([0, 4]),
        values={"l2": np.array([[1.0, 9.0], [np.nan, 9.0], [4.0, 7.0]])},
        measured=np.array([[True, False], [True, False], [True, True]]),
        counted=np.array([True, False, True]),
    )


def test_the_summary_is_the_mean_of_what_was_measured_and_counts() -> None:
    statistics = EpochStatistics(0, {}, (make_grid(),))
    assert statistics.summary() == {("gradients", "l2", 0): 2.5, ("gradients", "l2", 4): 7.0}


def test_what_was_measured_at_no_counted_step_is_absent() -> None:
    grid = make_grid()
    nothing = Grid(grid.kind, grid.steps, grid.blocks, grid.values, grid.measured, np.zeros(3, dtype=bool))
    assert EpochStatistics(0, {}, (nothing,)).summary() == {}


def test_values_of_blocks_are_added_beside_what_is_there() -> None:
    before = EpochStatistics(0, {}, (make_grid(),), n_steps=10)
    after = before.with_block_values("activations", {4: {"mean": 0.5, "off_fraction": 0.1}, 6: {"off_fraction": 0.3}})
    added = {key: value for key, value in after.summary().items() if key not in before.summary()}
    assert added == {
        ("activations", "mean", 4): 0.5,
        ("activations", "off_fraction", 4): 0.1,
        ("activations", "off_fraction", 6): 0.3,
    }
    assert {int(step) for grid in after.grids[1:] for step in grid.steps} == {9}
    assert len(before.grids) == 1


def test_no_values_change_nothing() -> None:
    statistics = EpochStatistics(0, {}, (make_grid(),))
    assert statistics.with_block_values("activations", {}) is statistics


def test_what_was_measured_once_is_told_apart_from_the_steps() -> None:
    whole = EpochStatistics(3, {}, (make_grid(),), n_steps=10, frozen=("00-Conv",))
    rest = whole.with_block_values("activations", {4: {"mean": 0.5}}).epoch_only
    assert rest.summary() == {("activations", "mean", 4): 0.5}
    assert (rest.epoch, rest.n_steps, rest.frozen) == (3, 10, ("00-Conv",))
