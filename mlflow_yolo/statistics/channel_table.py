"""Sums per channel of many layers or blocks in one table on the device, since the last step's end and in all."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlflow_yolo.statistics.vectors import Floats, to_host


class ChannelTable:
    """One column for every channel of every member; a member gets its columns when it is first seen.

    Sums are replaced and not changed in place, since tensors that were made in inference mode do not allow it.
    """

    def __init__(self, n_values: int) -> None:
        """Hold no column yet; every column has `n_values` sums."""
        self._n_values = n_values
        self._columns: dict[int, Tensor] = {}
        self._owners: list[Tensor] = []
        self._owner_of_column: Tensor | None = None
        self._step: Tensor | None = None
        self._total: Tensor | None = None

    def place(self, member: int, *, owner: int, n_channels: int, device: torch.device) -> None:
        """Give a member its columns, unless it has them; `owner` is what `by_owner` will count them for."""
        if member not in self._columns:
            first = sum(len(columns) for columns in self._columns.values())
            self._columns[member] = torch.arange(first, first + n_channels, device=device)
            self._owners.append(torch.full((n_channels,), owner, device=device))
            self._owner_of_column = None

    def add(self, members: Sequence[int], values: Tensor) -> None:
        """Add (n_values, R) to the columns of the members, which have R channels together."""
        columns = torch.cat([self._columns[member] for member in members])
        # float64 where the device has it: an epoch adds up thousands of passes.
        wide = values.float() if values.device.type == "mps" else values.double()
        self._step = self._sized(self._step, wide).index_add(1, columns, wide)

    @property
    def step(self) -> Tensor | None:
        """(n_values, R) what was added since the last `merge`."""
        return self._step

    def by_owner(self, values: Tensor, n_owners: int) -> Tensor:
        """Return (K, n_owners) the sums of (K, R) over the columns of each owner."""
        if self._owner_of_column is None:
            self._owner_of_column = torch.cat(self._owners)
        return values.new_zeros(len(values), n_owners).index_add(1, self._owner_of_column, values)

    def merge(self) -> None:
        """End the step: add what it had to the total."""
        if self._step is not None:
            self._total = self._step if self._total is None else self._sized(self._total, self._step) + self._step
            self._step = None

    def totals(self) -> dict[int, Floats]:
        """Return by member (n_values, C) everything that was added, with one copy from the device."""
        self.merge()
        if self._total is None:
            return {}
        (table,) = to_host([self._total])
        ends = np.cumsum([len(columns) for columns in self._columns.values()])
        return dict(zip(self._columns, np.split(table, ends[:-1], axis=1), strict=True))

    def _sized(self, table: Tensor | None, like: Tensor) -> Tensor:
        """Return the table with a column for every channel that has been placed."""
        n_columns = sum(len(columns) for columns in self._columns.values())
        if table is None:
            return torch.zeros(self._n_values, n_columns, dtype=like.dtype, device=like.device)
        missing = n_columns - table.shape[1]
        return torch.nn.functional.pad(table, (0, missing)) if missing else table
