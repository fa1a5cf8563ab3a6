"""The pre-activations of layers: which share is off, nonlinear or linear, what each channel lets through, how z lies.

Samples wait until the forward pass is over and are then reduced together, those of equal shape as one matrix: 81 layers
need some ten times fewer operations so. What is added up over passes has a fixed size per layer.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.statistics.channel_table import ChannelTable
from mlflow_yolo.statistics.density import N_CODES, Density, bin_codes, count_codes
from mlflow_yolo.statistics.positions import sample_positions
from mlflow_yolo.statistics.saturation import Activation, Layer, region_fractions
from mlflow_yolo.statistics.vectors import Floats

FRACTIONS = ("off_fraction", "nonlinear_fraction", "linear_fraction")

_MOST_WAITING = 4096
"""Samples after which a pass is taken as over, in a model that never calls its first block."""
Group = tuple[Activation, int, int]
"""Activation, sampled positions, and elements they stand for: samples that can be reduced as one matrix."""
Members = Sequence[tuple[int, Tensor]]
"""Number of a layer and its (C, P) sample."""


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """What the channels of one layer do, over all that was added.

    Attributes:
        off_fraction: (C,) share of positions that are off.
        linear_fraction: (C,) share of positions that are linear.
        openness: (C,) mean |f'(z)|.
        spread: (C,) standard deviation of f(z).
        n_elements: Number of elements per channel that these stand for.
    """

    off_fraction: Floats
    linear_fraction: Floats
    openness: Floats
    spread: Floats
    n_elements: float


class LayerPreActivations:
    """Adds up the pre-activations of layers, since the last step's end and in all."""

    def __init__(
        self, layers: Sequence[tuple[int, Layer]], n_blocks: int, *, n_elements: int, with_densities: bool = True
    ) -> None:
        """Hold nothing yet.

        Args:
            layers: Each with the number of its block, below `n_blocks`.
            n_blocks: Number of blocks.
            n_elements: About how many elements of a layer are looked at in one pass.
            with_densities: Whether the distribution of z is counted too.
        """
        self._layers, self._n_blocks, self._n_elements = layers, n_blocks, n_elements
        self._with_densities = with_densities
        self._waiting: list[tuple[int, tuple[int, ...], Tensor]] = []
        self._table = ChannelTable(6)
        self._centres: dict[int, Tensor] = {}
        self._first_codes: dict[int, Tensor] = {}
        self._counts: Tensor | None = None

    def see(self, number: int, z: Tensor, *, turn: int = 0) -> None:
        """Take what is needed from a pre-activation of the layer with that number, (B, C, ...)."""
        self._waiting.append((number, z.shape, sample_positions(z, self._n_elements, turn=turn)))
        if len(self._waiting) >= _MOST_WAITING:
            self.reduce()

    def reduce(self) -> None:
        """Reduce what waits."""
        waiting, self._waiting = self._waiting, []
        groups: dict[Group, list[tuple[int, Tensor]]] = defaultdict(list)
        for number, shape, sample in waiting:
            block, layer = self._layers[number]
            self._table.place(number, owner=block, n_channels=len(sample), device=sample.device)
            rows = sample.flatten(1)
            groups[layer.activation, rows.shape[1], math.prod(shape) // shape[1]].append((number, rows))
        if not groups:
            return
        tables, codes = [], []
        for (activation, _, n_elements), members in groups.items():
            z = torch.cat([sample for _, sample in members]).float()
            tables.append(self._measure(z, members, activation) * n_elements)
            if self._with_densities:
                codes.append(self._row_codes(z, members))
        self._table.add([number for members in groups.values() for number, _ in members], torch.cat(tables, dim=1))
        if codes:
            counts = count_codes(torch.cat(codes), len(self._layers))
            self._counts = counts if self._counts is None else self._counts + counts

    def end_step(self) -> Tensor | None:
        """Return what was added since the last call, (3, n_blocks) on the device as `fractions` takes it."""
        self.reduce()
        if self._table.step is None:
            return None
        off, linear, *_, counts = self._table.step
        values = torch.stack([off, linear, counts])
        self._table.merge()
        return self._table.by_owner(values, self._n_blocks)

    def channels(self) -> dict[int, LayerChannels]:
        """Return what the channels of every layer that ran do, by the layer's number, with one copy."""
        self.reduce()
        result = {}
        for number, table in self._table.totals().items():
            off, linear, openness, shift, square = table[:5] / table[5]
            spread = np.sqrt(np.maximum(square - shift**2, 0.0))
            result[number] = LayerChannels(off, linear, openness, spread, float(table[5, 0]))
        return result

    def densities(self, names: Sequence[str]) -> dict[int, Density]:
        """Return the distribution of z by block number; `names` are the layers' in their order."""
        self.reduce()
        if self._counts is None:
            return {}
        counts = self._counts.cpu().numpy()
        by_block: dict[int, list[int]] = defaultdict(list)
        for number in np.flatnonzero(counts.sum(axis=1)).tolist():
            by_block[self._layers[number][0]].append(number)
        return {
            block: Density(
                tuple(names[number] for number in numbers),
                tuple(self._layers[number][1].activation.name for number in numbers),
                counts[numbers, 1 : N_CODES - 2],
                counts[numbers, 0],
                counts[numbers, N_CODES - 2],
            )
            for block, numbers in sorted(by_block.items())
        }

    def _measure(self, z: Tensor, members: Members, activation: Activation) -> Tensor:
        """Return (6, R) means over positions: off, linear, |slope|, value and its square about a centre; and 1."""
        value, slope = activation.evaluate(z)
        off, linear = region_fractions(z, activation)
        if any(number not in self._centres for number, _ in members):
            means = value.mean(1).split([len(sample) for _, sample in members])
            for (number, _), mean in zip(members, means, strict=True):
                self._centres.setdefault(number, mean)
        # About a fixed centre, since a channel stuck at one value would drown in the rounding of float32.
        value = value - torch.cat([self._centres[number] for number, _ in members])[:, None]
        parts = [off, linear, slope.abs().mean(1), value.mean(1), value.square().mean(1), torch.ones_like(off)]
        return torch.stack(parts)

    def _row_codes(self, z: Tensor, members: Members) -> Tensor:
        """Return the bins of all elements, as `count_codes` takes them."""
        for number, sample in members:
            if number not in self._first_codes:
                self._first_codes[number] = torch.full((len(sample), 1), number * N_CODES, device=z.device)
        return (bin_codes(z) + torch.cat([self._first_codes[number] for number, _ in members])).reshape(-1)


def fractions(sums: Floats) -> Floats:
    """Return (3, ...) the shares off, nonlinear and linear, as `FRACTIONS` names them, from (3, ...) sums.

    Args:
        sums: Number of elements that are off, that are linear, and of all, > 0.
    """
    off, linear = sums[:2] / sums[2]
    return np.stack([off, np.clip(1.0 - off - linear, 0.0, 1.0), linear])


def block_fractions(
    layers: Sequence[tuple[int, Layer]], channels: Mapping[int, LayerChannels]
) -> dict[int, dict[str, float]]:
    """Return the three shares of every block over its layers, which weigh by their elements."""
    sums: dict[int, Floats] = defaultdict(lambda: np.zeros(3))
    for number, found in channels.items():
        parts = (found.off_fraction.sum(), found.linear_fraction.sum(), len(found.off_fraction))
        sums[layers[number][0]] += np.array(parts) * found.n_elements
    return {block: dict(zip(FRACTIONS, map(float, fractions(part)), strict=True)) for block, part in sums.items()}
