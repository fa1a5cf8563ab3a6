"""The two figures of a run's block statistics for MLflow's image grid, from all epochs so far."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mlflow_yolo.figures.blocks_over_epochs import blocks_over_epochs
from mlflow_yolo.figures.encode import rgb_array
from mlflow_yolo.figures.histogram_ridges import histogram_ridges
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.statistics.epoch import EpochStatistics
from mlflow_yolo.statistics.histogram import N_BINS

_GRADIENT = ("gradients", "l2")


def draw_statistics(epochs: Sequence[EpochStatistics], names: Mapping[int, str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the pictures by name: gradients of every block by epoch, and weight histograms by epoch.

    Args:
        epochs: One or more epochs, ascending.
        names: Block names by index.

    Returns:
        (H, W, 3) uint8 RGB: `gradient_l2` and, where weights were sampled, `weight_histograms`.
    """
    pictures = {"gradient_l2": rgb_array(_gradients(epochs, names))}
    if any("weights" in found.histograms for found in epochs):
        pictures["weight_histograms"] = rgb_array(_histograms(epochs, names))
    return pictures


def _gradients(epochs: Sequence[EpochStatistics], names: Mapping[int, str]) -> Figure:
    summaries = [found.summary() for found in epochs]
    frozen = np.array([[name in found.frozen for found in epochs] for name in names.values()])
    values = np.array([[summary.get((*_GRADIENT, block), np.nan) for summary in summaries] for block in names])
    shown = frozen.any(axis=1) | ~np.isnan(values).all(axis=1)
    return blocks_over_epochs(
        values[shown],
        blocks=[name for name, is_shown in zip(names.values(), shown, strict=True) if is_shown],
        statistic="gradient L2 before clipping",
        frozen=frozen[shown],
        log10=True,
        first_epoch=epochs[0].epoch,
    )


def _histograms(epochs: Sequence[EpochStatistics], names: Mapping[int, str]) -> Figure:
    measured = [found.histograms["weights"] for found in epochs if "weights" in found.histograms]
    blocks = sorted({int(block) for histograms in measured for block in histograms.blocks})
    counts = np.zeros((len(measured), len(blocks), 2, N_BINS), dtype=np.int64)
    for epoch, histograms in enumerate(measured):
        counts[epoch, np.searchsorted(blocks, histograms.blocks)] = histograms.counts
    negative_first = counts[:, :, ::-1]
    return histogram_ridges(negative_first, blocks=[names[block] for block in blocks], first_epoch=epochs[0].epoch)
