"""Parts of an epoch as bytes, and as rows: how the spool's payloads are written and read. Needs no torch.

A part is one Arrow record batch, a row a statistic: kind, statistic, steps (T,), blocks (B,) and values (T * B,), step
by step, null where nothing was measured. That is a quarter of a table with one row a value.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlflow_yolo.statistics.bins import N_BINS

if TYPE_CHECKING:
    from mlflow_yolo.statistics.epoch import EpochStatistics
    from mlflow_yolo.statistics.histogram import Histograms

MODEL_NAME = "model"
"""Name of what belongs to no block but to the whole model."""
STATE = "state"
"""Kind of the rows that say what is no measurement: `frozen` and `n_steps`."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LABEL = pa.dictionary(pa.int16(), pa.string())
ROWS = pa.schema(
    {
        "epoch": pa.int32(),
        "step": pa.int32(),
        "block": pa.int16(),
        "name": _LABEL,
        "kind": _LABEL,
        "statistic": _LABEL,
        "value": pa.float64(),
    }
)
"""Columns of `layers.parquet`."""

_BATCH = pa.schema(
    {
        "kind": pa.string(),
        "statistic": pa.string(),
        "steps": pa.list_(pa.int32()),
        "blocks": pa.list_(pa.int16()),
        "values": pa.list_(pa.float64()),
    }
)
_HISTOGRAM_BATCH = pa.schema(
    {
        "kind": pa.string(),
        "blocks": pa.list_(pa.int16()),
        "counts": pa.list_(pa.int64()),
        "zeros": pa.list_(pa.int64()),
    }
)
_SIZE_BYTES = 8
_Column = tuple[str, str, Ints, Ints, Floats, npt.NDArray[np.bool_]]


def encode(part: "EpochStatistics") -> bytes:
    """Return the measured grids of a part; empty when there are none."""
    return _encode(
        [
            (grid.kind, name, grid.steps, grid.blocks, values, grid.measured)
            for grid in part.grids
            if grid.measured.any()
            for name, values in grid.values.items()
        ]
    )


def encode_state(*, n_steps: int, frozen: Collection[int]) -> bytes:
    """Return what is no measurement, as rows of kind `state` at the epoch's last step.

    Args:
        n_steps: Optimizer steps of the epoch.
        frozen: Indices of the blocks that had parameters and trained none of them.
    """
    last = np.array([max(n_steps - 1, 0)])
    columns = [_state("n_steps", last, np.array([-1]), float(n_steps))]
    if frozen:
        columns.append(_state("frozen", last, np.array(sorted(frozen)), 1.0))
    return _encode(columns)


def _encode(columns: "Sequence[_Column]") -> bytes:
    if not columns:
        return b""
    kinds, statistics, steps, blocks, values, measured = zip(*columns, strict=True)
    return _pack(
        [
            pa.array(kinds, pa.string()),
            pa.array(statistics, pa.string()),
            _lists(steps, pa.int32()),
            _lists(blocks, pa.int16()),
            _lists(values, pa.float64(), hidden=[~mask for mask in measured]),
        ],
        _BATCH,
    )


def decode(payload: bytes) -> pa.RecordBatch:
    """Return what `encode` wrote."""
    return _unpack(payload, _BATCH)


def count(batch: pa.RecordBatch) -> int:
    """Return the number of values of a part, measured or not."""
    return len(batch.column("values").flatten())


def to_rows(batches: Sequence[tuple[int, pa.RecordBatch]], names: Mapping[int, str]) -> pa.Table:
    """Return one row a measured value, in the order given.

    Args:
        batches: Epoch and part.
        names: Block names by index.
    """
    epochs = np.repeat([epoch for epoch, _ in batches], [batch.num_rows for _, batch in batches])
    table = pa.Table.from_batches([batch for _, batch in batches]).combine_chunks()
    values, n_values, _ = _flat(table, "values")
    steps, _, first_step = _flat(table, "steps")
    blocks, n_blocks, first_block = _flat(table, "blocks")
    line = np.repeat(np.arange(len(n_values)), n_values)
    place = np.arange(len(line)) - np.repeat(np.cumsum(n_values) - n_values, n_values)
    of_line = n_blocks[line]
    measured = values.is_valid().to_numpy(zero_copy_only=False)
    line, step = line[measured], (first_step[line] + place // of_line)[measured]
    block = blocks.to_numpy()[(first_block[line] + (place % of_line)[measured])]
    known = np.unique(block)
    labels = [names.get(int(b), MODEL_NAME if b < 0 else str(b)) for b in known]
    arrays = [
        pa.array(epochs[line].astype(np.int32)),
        pa.array(steps.to_numpy()[step]),
        pa.array(block),
        pa.DictionaryArray.from_arrays(pa.array(np.searchsorted(known, block).astype(np.int16)), pa.array(labels)),
        _repeated(table.column("kind"), line),
        _repeated(table.column("statistic"), line),
        values.drop_null(),
    ]
    return pa.Table.from_arrays(arrays, schema=ROWS)


def encode_histograms(histograms: "Mapping[str, Histograms]") -> bytes:
    """Return histograms by kind; empty when there are none."""
    if not histograms:
        return b""
    columns = [
        pa.array(list(histograms), pa.string()),
        _lists([found.blocks for found in histograms.values()], pa.int16()),
        _lists([found.counts for found in histograms.values()], pa.int64()),
        _lists([found.zeros for found in histograms.values()], pa.int64()),
    ]
    return _pack(columns, _HISTOGRAM_BATCH)


def decode_histograms(payload: bytes) -> dict[str, tuple[Ints, Ints, Ints]]:
    """Return by kind what `encode_histograms` wrote: blocks (B,), counts (B, 2, 64), zeros (B,)."""
    batch = _unpack(payload, _HISTOGRAM_BATCH)
    found = {}
    for kind, *lists in zip(*(batch.column(name) for name in _HISTOGRAM_BATCH.names), strict=True):
        blocks, counts, zeros = (item.values.to_numpy().astype(np.int64) for item in lists)
        found[kind.as_py()] = (blocks, counts.reshape(-1, 2, N_BINS), zeros)
    return found


def _state(name: str, steps: Ints, blocks: Ints, value: float) -> _Column:
    shape = (len(steps), len(blocks))
    return STATE, name, steps, blocks, np.full(shape, value), np.ones(shape, dtype=np.bool_)


def _lists(
    arrays: "Sequence[npt.NDArray[np.generic]]",
    kind: pa.DataType,
    hidden: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> pa.ListArray:
    """Return one list a row with the elements of each array, null where `hidden`."""
    offsets = np.concatenate([[0], np.cumsum([array.size for array in arrays])]).astype(np.int32)
    flat = np.concatenate([np.ravel(array) for array in arrays]).astype(kind.to_pandas_dtype())
    mask = None if hidden is None else np.concatenate([np.ravel(array) for array in hidden])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, mask=mask))


def _pack(columns: Sequence[pa.Array], schema: pa.Schema) -> bytes:
    plain = pa.RecordBatch.from_arrays(list(columns), schema=schema).serialize()
    return bytes(plain.size.to_bytes(_SIZE_BYTES, "little") + pa.compress(plain, codec="zstd", asbytes=True))


def _unpack(payload: bytes, schema: pa.Schema) -> pa.RecordBatch:
    size = int.from_bytes(payload[:_SIZE_BYTES], "little")
    plain = pa.decompress(payload[_SIZE_BYTES:], decompressed_size=size, codec="zstd")
    return pa.ipc.read_record_batch(plain, schema)


def _flat(table: pa.Table, name: str) -> tuple[pa.Array, Ints, Ints]:
    """Return all elements of a column of lists, the length of each list and where it begins."""
    column = table.column(name).combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return column.flatten(), np.diff(offsets), offsets[:-1] - offsets[0]


def _repeated(column: pa.ChunkedArray, line: Ints) -> pa.DictionaryArray:
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int16)[line]
    return pa.DictionaryArray.from_arrays(pa.array(codes), encoded.dictionary)
