"""The files with every statistic of a run: `layers.parquet` (a tidy table) and `histograms.npz`.

`layers.parquet`, one row a value: epoch, step (within the epoch, from 0), block (index; -1: whole model), name, kind
(`gradients`, `weights`, `activations`, `batch_norm`, `global`, `state`), statistic, value.

Rows of kind `state` say what is no measurement: `n_steps` (how many optimizer steps the epoch had so far, sampled or
not; block -1) and, once the epoch has ended, `frozen` (1: the block has parameters and trains none of them).

`histograms.npz`: `epochs` (E,), `blocks` (B,) indices, `names` (B,), `edges` (65,) magnitudes, and for each of
`weights`, `ema_weights` (of the moving average) and `gradients` counts (E, B, 2, 64) (positive, negative) and
`<kind>_zeros` (E, B). Blocks without trainable parameters have counts of 0, and so has what was not collected.

Both are made from `statistics.spool`, which grows by every part that is measured: writing costs what is in the part,
a killed process loses nothing that it had appended, and no table is kept in memory. Needs no torch.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics import parts
from mlflow_yolo.statistics.bins import EDGES, N_BINS
from mlflow_yolo.statistics.spool import Entry, Spool, payloads, scan

if TYPE_CHECKING:
    from mlflow_yolo.statistics.epoch import EpochStatistics

TABLE_FILE = "layers.parquet"
HISTOGRAM_FILE = "histograms.npz"
SPOOL_FILE = "statistics.spool"
HISTOGRAM_KINDS = ("weights", "ema_weights", "gradients")

Arrays = dict[str, npt.NDArray[Any]]
_PART, _HISTOGRAMS, _STATE, _NAMES = b"p", b"h", b"s", b"n"
_ROWS_PER_GROUP = 1 << 18


class StatisticsWriter:
    """Takes what is measured part by part and makes the files of it; used by one thread, not the trainer's."""

    def __init__(self, directory: Path, *, resume: bool = False) -> None:
        """Open the spool.

        Args:
            directory: Where the files go; made at the first part.
            resume: Continue the spool that is there; otherwise it and the files made of it are removed.

        Raises:
            OSError: They cannot be removed or read.
        """
        self._directory = directory
        self._spool = Spool(directory / SPOOL_FILE)
        self._names: dict[int, str] = {}
        self._attempts: dict[int, int] = {}
        if not resume:
            for name in (SPOOL_FILE, TABLE_FILE, HISTOGRAM_FILE):
                (directory / name).unlink(missing_ok=True)
        self.next_attempt = 1 + max((entry.attempt for entry in scan(self._spool.path)), default=-1)
        """Number of the first attempt of this process: higher than all in the spool, 0 for a new one."""

    @property
    def error(self) -> str:
        """Why the disk refused the last part, which then waits in memory; empty while it accepts."""
        return self._spool.error

    @property
    def n_dropped(self) -> int:
        """How many parts fitted neither on disk nor in memory."""
        return self._spool.n_dropped

    def append(self, part: "EpochStatistics", *, attempt: int) -> None:
        """Put the grids of a part on disk, and what it says of its epoch: frozen blocks, number of steps.

        Does not raise when the disk refuses: the part waits in memory, and `error` says why.

        Args:
            part: Some steps of an epoch, or what is measured once an epoch. Histograms are not taken from it.
            attempt: Which attempt at this epoch, rising; rows of earlier attempts at the same epoch are left out.
        """
        self._attempts[part.epoch] = attempt
        self._append_names(part, attempt)
        if payload := parts.encode(part):
            self._spool.append(_PART, payload, epoch=part.epoch, attempt=attempt)
        if part.n_steps:
            frozen = [index for index, name in part.names.items() if name in part.frozen]
            state = parts.encode_state(n_steps=part.n_steps, frozen=frozen)
            self._spool.append(_STATE, state, epoch=part.epoch, attempt=attempt)

    def add_histograms(self, statistics: "EpochStatistics") -> None:
        """Put an epoch's histograms on disk; they belong to the attempt that was appended last at that epoch."""
        attempt = self._attempts.setdefault(statistics.epoch, self.next_attempt)
        self._append_names(statistics, attempt)
        if payload := parts.encode_histograms(statistics.histograms):
            self._spool.append(_HISTOGRAMS, payload, epoch=statistics.epoch, attempt=attempt)

    def write(self, extra: Mapping[str, pd.DataFrame] | None = None) -> tuple[Path, ...]:
        """Make the files, each atomically, and return their paths.

        Args:
            extra: Further tables by name, each written to `<name>.parquet`.

        Raises:
            OSError: The disk is full or the directory cannot be written to; the old files are then still whole.
        """
        self._spool.flush()
        self._directory.mkdir(parents=True, exist_ok=True)
        return (
            *_make_files(self._directory),
            *(_write_frame(self._directory, *item) for item in (extra or {}).items()),
        )

    def _append_names(self, part: "EpochStatistics", attempt: int) -> None:
        new = {index: name for index, name in part.names.items() if self._names.get(index) != name}
        if new:
            self._names |= new
            self._spool.append(_NAMES, json.dumps(new).encode(), epoch=part.epoch, attempt=attempt)


def assemble(directory: Path) -> tuple[Path, ...]:
    """Make the files from the spool that a killed process left in `directory`, and return their paths.

    Returns:
        Nothing where there is no spool. The spool stays as it is; doing this again gives the same files.

    Raises:
        OSError: The disk is full or the directory cannot be written to.
    """
    return _make_files(directory) if (directory / SPOOL_FILE).exists() else ()


def read(directory: Path) -> tuple[pd.DataFrame, Arrays]:
    """Return the table and the arrays that `StatisticsWriter` wrote to `directory`.

    Returns:
        The table with categorical name, kind and statistic, in the order of epochs; and the arrays by name.

    Raises:
        WorkError: A file is missing or damaged.
    """
    return read_table(directory / TABLE_FILE), read_histograms(directory / HISTOGRAM_FILE)


def read_table(path: Path, *, rows: list[tuple[str, str, Any]] | None = None) -> pd.DataFrame:
    """Return the table in `path`, or those `rows` of it (pyarrow's filters, all of which hold).

    Raises:
        WorkError: It is missing or damaged.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path, filters=rows).to_pandas()
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error
    return frame


def read_histograms(path: Path) -> Arrays:
    """Return the arrays in `path`.

    Raises:
        WorkError: It is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside `path` and rename it into place: a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _make_files(directory: Path) -> tuple[Path, Path]:
    spool, table, histograms = (directory / name for name in (SPOOL_FILE, TABLE_FILE, HISTOGRAM_FILE))
    entries = scan(spool)
    kept = _last_attempts(entries)
    names = _names(spool, entries)
    write_atomically(table, lambda file: _write_table(_tables(spool, kept, names), file))
    arrays = _arrays(spool, kept, names)
    write_atomically(histograms, lambda file: _save(file, arrays))
    return table, histograms


def _last_attempts(entries: Sequence[Entry]) -> list[Entry]:
    """Return the records of each epoch's last attempt, by epoch and then in the order they were written."""
    last: dict[int, int] = {}
    states: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        if entry.kind != _NAMES:
            last[entry.epoch] = max(entry.attempt, last.get(entry.epoch, entry.attempt))
        if entry.kind == _STATE:
            states[entry.epoch, entry.attempt] = entry  # each says more than the one before
    measured = [*states.values(), *(entry for entry in entries if entry.kind in (_PART, _HISTOGRAMS))]
    return sorted((e for e in measured if e.attempt == last[e.epoch]), key=lambda e: (e.epoch, e.start))


def _names(spool: Path, entries: Iterable[Entry]) -> dict[int, str]:
    names: dict[int, str] = {}
    for _, payload in payloads(spool, [entry for entry in entries if entry.kind == _NAMES]):
        names |= {int(index): name for index, name in json.loads(payload).items()}
    return names


def _tables(spool: Path, entries: Iterable[Entry], names: Mapping[int, str]) -> Iterator[pa.Table]:
    """Yield the rows in tables of about a quarter of a million, so that memory does not grow with the run."""
    waiting: list[tuple[int, pa.RecordBatch]] = []
    n_rows = 0
    for entry, payload in payloads(spool, [entry for entry in entries if entry.kind in (_PART, _STATE)]):
        batch = parts.decode(payload)
        waiting.append((entry.epoch, batch))
        n_rows += parts.count(batch)
        if n_rows >= _ROWS_PER_GROUP:
            yield parts.to_rows(waiting, names)
            waiting, n_rows = [], 0
    if waiting:
        yield parts.to_rows(waiting, names)


def _arrays(spool: Path, entries: Iterable[Entry], names: Mapping[int, str]) -> Arrays:
    chosen = [entry for entry in entries if entry.kind == _HISTOGRAMS]
    found = {entry.epoch: parts.decode_histograms(payload) for entry, payload in payloads(spool, chosen)}
    epochs = sorted(found)
    known = {int(block) for kinds in found.values() for of, _, _ in kinds.values() for block in of}
    blocks = np.array(sorted(known), dtype=np.int64)
    arrays: Arrays = {
        "epochs": np.array(epochs, dtype=np.int64),
        "blocks": blocks,
        "names": np.array([names.get(int(block), str(block)) for block in blocks], dtype=np.str_),
        "edges": EDGES,
    }
    for kind in HISTOGRAM_KINDS:
        counts = np.zeros((len(epochs), len(blocks), 2, N_BINS), dtype=np.int64)
        zeros = np.zeros(counts.shape[:2], dtype=np.int64)
        for e, epoch in enumerate(epochs):
            if kind in found[epoch]:
                of, counted, exact = found[epoch][kind]
                rows = np.searchsorted(blocks, of)
                counts[e, rows], zeros[e, rows] = counted, exact
        arrays |= {kind: counts, f"{kind}_zeros": zeros}
    return arrays


def _write_table(tables: Iterable[pa.Table], file: BinaryIO) -> None:
    """Write the table; splitting the values by byte saves a fifth of the file and a quarter of the time."""
    repeated = [name for name in parts.ROWS.names if name != "value"]
    encoding = {"value": "BYTE_STREAM_SPLIT"}
    with pq.ParquetWriter(
        file, parts.ROWS, compression="zstd", use_dictionary=repeated, column_encoding=encoding
    ) as writer:
        for table in tables:
            writer.write_table(table)


def _write_frame(directory: Path, name: str, frame: pd.DataFrame) -> Path:
    path = directory / f"{name}.parquet"
    table = pa.Table.from_pandas(frame, preserve_index=False)
    write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))
    return path


def _save(file: BinaryIO, arrays: Arrays) -> None:
    """Write arrays as `numpy.savez_compressed` does, at zlib's fastest level: the file is written again and again."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _unreadable(path: Path, error: Exception) -> WorkError:
    remedy = f"Remove it: it is made again from {SPOOL_FILE}, by mlflow-yolo replay or the next training there."
    return WorkError(f"the statistics in {path} cannot be read: {error}. {remedy}")
