"""The outputs of blocks: mean, spread, how different the channels are, and how much they repeat one another.

Sums per channel are added over forward passes on the device; memory is constant per block however many passes there
are.
"""

import math
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.statistics.channel_table import ChannelTable
from mlflow_yolo.statistics.positions import sample_positions
from mlflow_yolo.statistics.redundancy import SecondMoments, effective_rank, gram_and_covariance, redundancy
from mlflow_yolo.statistics.vectors import Floats, to_host

STATISTICS = ("mean", "std", "channel_variance", "intra_channel_variance")
AXES = ("variance_images", "variance_channels", "variance_rows", "variance_columns")
"""What `axis_variances` are called, in the order of the axes (B, C, H, W)."""

_ELEMENTS, _FEWEST_IMAGES = 1 << 15, 2
"""Of an output, as many images enter the variances along axes as make up so many elements, but no fewer."""


def channel_sums(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, C) sum and norm per image and channel, float32, on the output's device.

    The norm is 24 times faster on a CPU than var_mean (torch 2.15); it is per image, so that float32 is enough.

    Args:
        output: (B, C, ...) of any floating point type.
    """
    maps = output.detach()
    maps = maps.unsqueeze(-1) if maps.ndim == 2 else maps
    inner = tuple(range(2, maps.ndim))
    return maps.sum(inner, dtype=torch.float32), torch.linalg.vector_norm(maps, 2, inner, dtype=torch.float32)


def output_statistics(sums: Floats) -> Floats:
    """Return (4, ...) mean, std, between-channel and within-channel variance, as `STATISTICS` names them.

    Variances are population ones, so std^2 is the sum of the two: `channel_variance` = Var_c(mean over images and
    pixels), how different the channels are; `intra_channel_variance` = mean_c(Var over images and pixels).

    Args:
        sums: (4, ...) sums over a block's channels: of their means, of the squared means, of their variances, and the
            number of channels, > 0.
    """
    mean, square, within = sums[:3] / sums[3]
    between = np.maximum(square - mean**2, 0.0)
    return np.stack([mean, np.sqrt(between + within), between, within])


def axis_variances(output: Tensor) -> Tensor:
    """Return (ndim,) for each axis the unbiased variance along it, averaged over all others, on the device.

    Axis 0 says how different the images are at one position of one channel, axis 1 how different the channels at one
    position, 2 and 3 how much a map varies from row to row and from column to column.

    Args:
        output: (B, C, H, W) or any other shape, floating point, not empty.

    Returns:
        float32, >= 0; NaN for an axis of length 1.
    """
    maps = output.detach().float()
    maps = maps - maps.mean()  # E x^2 - (E x)^2 takes a CPU a tenth of torch.var's time; it needs values around 0
    square = maps.square().mean()
    population = torch.stack([square - maps.mean(axis).square().mean() for axis in range(maps.ndim)])
    factors = [n / (n - 1) if n > 1 else math.nan for n in maps.shape]
    return population.clamp(min=0) * population.new_tensor(factors)


class BlockOutputs:
    """Adds up the outputs of blocks, since the last step's end and in all."""

    def __init__(self, n_blocks: int, *, n_positions: int, along_axes: bool = False) -> None:
        """Hold nothing yet.

        Args:
            n_blocks: Number of blocks; they are numbered from 0.
            n_positions: About how many positions of an output enter the second moments of its channels.
            along_axes: Whether the variances along each axis are measured too, on some images of the first pass.
        """
        self._n_blocks, self._n_positions, self._along_axes = n_blocks, n_positions, along_axes
        self._waiting: list[tuple[int, int, Tensor, Tensor, Tensor]] = []
        self._table = ChannelTable(3)
        self._moments: dict[int, SecondMoments] = {}
        self._axes: dict[int, Tensor] = {}

    def see(self, number: int, output: Tensor, *, turn: int = 0) -> None:
        """Take what is needed from an output of the block with that number, (B, C, ...)."""
        n_channels = output.shape[1]
        sample = sample_positions(output, self._n_positions * n_channels, turn=turn)
        sums, norms = channel_sums(output)
        self._waiting.append((number, output.numel() // n_channels, sums, norms, sample))
        if self._along_axes and turn <= 1:
            self._add_axes(number, output)

    def reduce(self) -> None:
        """Reduce what waits: one operation for all blocks wherever that is possible."""
        waiting, self._waiting = self._waiting, []
        by_batch: dict[int, list[tuple[int, int, Tensor, Tensor]]] = defaultdict(list)
        samples = [(number, sample.flatten(1)) for number, *_, sample in waiting]
        for number, n_elements, sums, norms, _ in waiting:
            self._table.place(number, owner=number, n_channels=sums.shape[1], device=sums.device)
            by_batch[len(sums)].append((number, n_elements, sums, norms))
        for entries in by_batch.values():
            sums, norms = torch.cat([entry[2] for entry in entries], 1), torch.cat([entry[3] for entry in entries], 1)
            counts = torch.cat([part.new_full(part.shape[1:], float(n)) for _, n, part, _ in entries])
            values = torch.stack([sums.sum(0), norms.square().sum(0), counts])
            self._table.add([number for number, *_ in entries], values)
        for number, sample in samples:
            if number not in self._moments:
                self._moments[number] = SecondMoments(sample)
            self._moments[number].add(sample)

    def end_step(self) -> Tensor | None:
        """Return what was added since the last call, (4, n_blocks) on the device as `output_statistics` takes it."""
        self.reduce()
        if self._table.step is None:
            return None
        sums, squares, counts = self._table.step
        seen = counts.clamp(min=1)
        mean = sums / seen
        within = (squares / seen - mean.square()).clamp(min=0)
        self._table.merge()
        values = torch.stack([mean, mean.square(), within, (counts > 0).to(mean.dtype)])
        return self._table.by_owner(values, self._n_blocks)

    def result(self) -> dict[int, dict[str, float]]:
        """Return the statistics of every block by its number, over all that was added, with three copies.

        Outputs weigh by their elements in the variances along axes. `effective_rank` is absent for a block of which no
        more positions were sampled than it has channels: its covariance would lack rank for want of data. What is not
        defined is absent.
        """
        self.reduce()
        totals = self._table.totals()
        moments = to_host([part for number in totals for part in self._moments[number].parts()])
        axes = dict(zip(self._axes, to_host(list(self._axes.values())), strict=True))
        result = {}
        for i, (number, (sums, squares, counts)) in enumerate(totals.items()):
            mean = sums / counts
            within = np.maximum(squares / counts - mean**2, 0.0)
            found = output_statistics(np.array([mean.sum(), (mean**2).sum(), within.sum(), len(mean)]))
            values = dict(zip(STATISTICS, map(float, found), strict=True))
            n_positions = self._moments[number].n_positions
            gram, covariance = gram_and_covariance(n_positions, *moments[3 * i : 3 * i + 3])
            if number in axes:
                along, n_elements = axes[number]
                with np.errstate(invalid="ignore"):  # an axis of length 1
                    values |= {name: float(value) for name, value in zip(AXES, along / n_elements, strict=False)}
            values["redundancy"] = redundancy(gram)
            if n_positions > len(mean):
                values["effective_rank"] = effective_rank(covariance)
            undefined = {name for name in values.keys() - STATISTICS if not np.isfinite(values[name])}
            result[number] = {name: value for name, value in values.items() if name not in undefined}
        return result

    def _add_axes(self, number: int, output: Tensor) -> None:
        """Add the variances along axes times the number of elements, and that number; not if axes have come or gone."""
        maps = output[: max(_FEWEST_IMAGES, _ELEMENTS * len(output) // output.numel())]
        along = axis_variances(maps)
        is_there = ~along.isnan()
        sums = torch.stack([torch.where(is_there, along, 0.0), is_there.float()]) * maps.numel()
        known = self._axes.get(number)
        if known is None or known.shape == sums.shape:
            self._axes[number] = sums if known is None else known + sums
