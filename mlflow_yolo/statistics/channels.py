"""The health of every channel as one table: what it lets through, by the data and by its batch norm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlflow_yolo.statistics.batch_norm import read_batch_norms
from mlflow_yolo.statistics.channel_status import channel_status, status_fractions
from mlflow_yolo.statistics.layers import LayerChannels
from mlflow_yolo.statistics.saturation import Layer
from mlflow_yolo.statistics.vectors import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

LEAST_IMAGES = 256
"""With fewer, a channel that only some rare object opens looks dead."""


@dataclass(frozen=True, eq=False)
class ChannelHealth:
    """One row for every channel of every layer with a known activation.

    Attributes:
        block: (N,) index of the block.
        layer: (N,) name of the layer: `model.4.m.0.cv1`.
        activation: (N,) name of the activation.
        channel: (N,) index of the channel in the layer.
        openness: (N,) mean |f'(z)| over images and positions.
        spread: (N,) standard deviation of f(z) over images and positions.
        off_fraction: (N,) share of positions at which the activation is off.
        bn_openness: (N,) openness after the batch norm's weights alone; NaN without a batch norm.
        bn_off_fraction: (N,) the same for the off fraction.
        status: (N,) `alive`, `near-dead` or `dead`.
        n_images: Number of images it was measured on.
    """

    block: Ints
    layer: npt.NDArray[np.object_]
    activation: npt.NDArray[np.object_]
    channel: Ints
    openness: Floats
    spread: Floats
    off_fraction: Floats
    bn_openness: Floats
    bn_off_fraction: Floats
    status: npt.NDArray[np.object_]
    n_images: int

    @property
    def enough_images(self) -> bool:
        """Whether the statuses may be relied on: at least 256 images. With fewer they are provisional."""
        return self.n_images >= LEAST_IMAGES

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.block)

    def fractions(self, block: int) -> dict[str, float]:
        """Return the `dead_fraction` and `near_dead_fraction` of a block's channels; empty for one without any."""
        return status_fractions(self.status[self.block == block])

    def to_frame(self) -> "pd.DataFrame":
        """Return the table as a data frame, `n_images` and `enough_images` as columns too."""
        import pandas as pd

        columns = {column.name: getattr(self, column.name) for column in fields(self) if column.name != "n_images"}
        return pd.DataFrame(columns).assign(n_images=self.n_images, enough_images=self.enough_images)


def channel_table(
    layers: Sequence[tuple[int, Layer]], names: Sequence[str], found: Mapping[int, LayerChannels], *, n_images: int
) -> ChannelHealth:
    """Return the health of every channel of the layers that ran.

    Args:
        layers: Block index and layer.
        names: Their names in the table.
        found: What was measured, by the layer's number.
        n_images: Number of images it was measured on.
    """
    numbers = sorted(found)
    columns: dict[str, list[Any]] = {column.name: [] for column in fields(ChannelHealth) if column.name != "n_images"}
    norms = read_batch_norms([layers[number][1] for number in numbers])
    for number, norm in zip(numbers, norms, strict=True):
        (block, layer), own, form = layers[number], found[number], norm and norm.forms()
        n = len(own.spread)
        unknown = np.full(n, np.nan)
        row = {
            "block": np.full(n, block),
            "layer": np.full(n, names[number], dtype=object),
            "activation": np.full(n, layer.activation.name, dtype=object),
            "channel": np.arange(n),
            "openness": own.openness,
            "spread": own.spread,
            "off_fraction": own.off_fraction,
            "bn_openness": form.openness if form else unknown,
            "bn_off_fraction": form.off_fraction if form else unknown,
            "status": channel_status(own.openness, own.spread, own.off_fraction),
        }
        for name, part in row.items():
            columns[name].append(part)
    types = {"block": np.int64, "channel": np.int64, "layer": object, "activation": object, "status": object}
    joined = {
        name: np.concatenate([np.empty(0, dtype=types.get(name, np.float64)), *parts])
        for name, parts in columns.items()
    }
    return ChannelHealth(**joined, n_images=n_images)
