"""The pictures of block statistics, whatever was and was not measured."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.bins import N_BINS
from mlflow_yolo.statistics.epoch import EpochStatistics, Grid
from mlflow_yolo.statistics.histogram import Histograms
from mlflow_yolo.statistics.storage import StatisticsWriter
from mlflow_yolo.tracking.blocks.statistics_figures import draw_statistics

NAMES = {0: "00-Conv", 1: "01-C3k2", 2: "02-Concat"}


def grid_of(kind: str, statistic: str, *values: float) -> Grid:
    """Return values of block 1, one for each step."""
    shape = len(values), 1
    column = np.array(values).reshape(shape)
    return Grid(
        kind,
        np.arange(len(values)),
        np.array([1]),
        {statistic: column},
        np.ones(shape, bool),
        np.ones(len(values), bool),
    )


def epoch_of(epoch: int, *grids: Grid, frozen: tuple[str, ...] = ("00-Conv",)) -> EpochStatistics:
    counts = np.zeros((2, 2, N_BINS), dtype=np.int64)
    counts[1, :, 20] = 5
    histograms = {"weights": Histograms(np.array([0, 1]), counts, np.zeros(2, dtype=np.int64))}
    return EpochStatistics(epoch, NAMES, grids, histograms, n_steps=2, frozen=frozen)


def pictures_of(folder: Path, *epochs: EpochStatistics, histograms: bool = True) -> dict[str, npt.NDArray[np.uint8]]:
    writer = StatisticsWriter(folder)
    for found in epochs:
        writer.append(found, attempt=0)
        if histograms:
            writer.add_histograms(found)
    writer.write()
    return draw_statistics(folder)


def l2(*values: float) -> Grid:
    return grid_of("gradients", "l2", *values)


def test_everything_that_was_measured_has_its_picture_in_bytes_of_rgb(tmp_path: Path) -> None:
    grids = l2(1, 2), grid_of("weights", "update_ratio", 1e-3, 2e-3), grid_of("activations", "off_fraction", 0.5)
    pictures = pictures_of(tmp_path, epoch_of(1, *grids), epoch_of(2, *grids))
    assert set(pictures) == {
        "gradient_l2",
        "gradient_l2_steps",
        "update_ratio",
        "update_ratio_steps",
        "off_fraction",
        "weight_histograms",
    }
    for picture in pictures.values():
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
        assert len(np.unique(picture)) > 2


def test_without_sampled_weights_there_is_no_histogram(tmp_path: Path) -> None:
    assert set(pictures_of(tmp_path, epoch_of(1, l2(1)), histograms=False)) == {"gradient_l2"}


def test_an_epoch_with_one_sample_is_not_drawn_by_step(tmp_path: Path) -> None:
    assert "gradient_l2_steps" not in pictures_of(tmp_path, epoch_of(1, l2(1)), epoch_of(2, l2(2)))


def test_other_gradients_give_another_picture(tmp_path: Path) -> None:
    first, second = (
        pictures_of(tmp_path / str(last), epoch_of(1, l2(1, 2)), epoch_of(2, l2(1, last)))["gradient_l2_steps"]
        for last in (1.0, 900.0)
    )
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_frozen_blocks_have_a_row_of_their_own(tmp_path: Path) -> None:
    frozen = pictures_of(tmp_path / "a", epoch_of(1, l2(1)))["gradient_l2"]
    free = pictures_of(tmp_path / "b", epoch_of(1, l2(1), frozen=()))["gradient_l2"]
    assert frozen.shape != free.shape or not np.array_equal(frozen, free)


@pytest.mark.parametrize("frozen", [(), ("00-Conv", "01-C3k2")])
def test_epochs_without_any_gradient_have_no_picture_of_them(tmp_path: Path, frozen: tuple[str, ...]) -> None:
    assert set(pictures_of(tmp_path, epoch_of(1, frozen=frozen))) == {"weight_histograms"}


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"layers\.parquet"):
        draw_statistics(tmp_path)
