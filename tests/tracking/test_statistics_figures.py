"""The pictures of block statistics, whatever was and was not measured."""

import numpy as np
import pytest

from mlflow_yolo.statistics.epoch import EpochStatistics, Grid
from mlflow_yolo.statistics.histogram import N_BINS, Histograms
from mlflow_yolo.tracking.statistics_figures import draw_statistics

NAMES = {0: "00-Conv", 1: "01-C3k2", 2: "02-Concat"}


def epoch_of(
    epoch: int, *, frozen: tuple[str, ...] = ("00-Conv",), value: float = 1.0, **changed: object
) -> EpochStatistics:
    """Return one epoch in which block 1 learned and block 2 has nothing to learn."""
    one = np.ones((1, 1), dtype=bool)
    grid = Grid("gradients", np.array([0]), np.array([1]), {"l2": np.full((1, 1), value)}, one, one[0])
    counts = np.zeros((2, 2, N_BINS), dtype=np.int64)
    counts[1, :, 20] = 5
    histograms = Histograms(np.array([0, 1]), counts, np.zeros(2, dtype=np.int64))
    given = {"grids": (grid,), "histograms": {"weights": histograms}, "frozen": frozen}
    return EpochStatistics(epoch, NAMES, **{**given, **changed})  # type: ignore[arg-type]


def test_both_pictures_are_rgb_arrays_of_bytes() -> None:
    pictures = draw_statistics([epoch_of(1), epoch_of(2)], NAMES)

    assert set(pictures) == {"gradient_l2", "weight_histograms"}
    for picture in pictures.values():
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
        assert len(np.unique(picture)) > 2


def test_without_sampled_weights_there_is_no_histogram() -> None:
    assert set(draw_statistics([epoch_of(1, histograms={})], NAMES)) == {"gradient_l2"}


def test_other_gradients_give_another_picture() -> None:
    first, second = (
        draw_statistics([epoch_of(1, value=1.0), epoch_of(2, value=last)], NAMES)["gradient_l2"]
        for last in (1.0, 900.0)
    )

    assert first.shape != second.shape or not np.array_equal(first, second)


@pytest.mark.parametrize("frozen", [(), ("00-Conv", "01-C3k2")])
def test_epochs_without_any_gradient_can_be_drawn(frozen: tuple[str, ...]) -> None:
    assert "gradient_l2" in draw_statistics([epoch_of(1, grids=(), histograms={}, frozen=frozen)], NAMES)
