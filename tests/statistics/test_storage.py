import errno
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.histogram import EDGES, Histograms
from mlflow_yolo.statistics.storage import HISTOGRAM_FILE, TABLE_FILE, StatisticsWriter, read, write_atomically

NAMES = {0: "00-Conv", 4: "04-C3k2"}


def make_epoch(epoch: int, *, value: float = 1.0) -> EpochStatistics:
    """Return an epoch with two sampled steps; block 4 is measured at the second only."""
    grid = Grid(
        "gradients",
        np.array([0, 3]),
        np.array([0, 4]),
        {"l2": np.array([[value, -1.0], [value + 1, value + 2]]), "l1": np.full((2, 2), 10 * value)},
        np.array([[True, False], [True, True]]),
        np.array([True, True]),
    )
    whole = Grid("global", np.array([3]), np.array([NO_BLOCK]), {"gradient_norm": np.array([[7.0]])}, *TRUE)
    counts = np.zeros((2, 2, 64), dtype=np.int64)
    counts[1, 0, 40] = 100 + epoch
    histograms = {"weights": Histograms(np.array([0, 4]), counts, np.array([5, 6]))}
    return EpochStatistics(epoch, NAMES, (grid, whole), histograms, n_steps=4)


TRUE = (np.ones((1, 1), dtype=bool), np.ones(1, dtype=bool))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path / "statistics")
    writer.add(make_epoch(0))
    writer.add(make_epoch(1, value=5.0))
    writer.write()
    frame, arrays = read(tmp_path / "statistics")
    rows = frame[(frame.epoch == 1) & (frame.statistic == "l2")]
    found = rows[["step", "block", "name", "kind", "value"]].to_records(index=False).tolist()
    assert found == [
        (0, 0, "00-Conv", "gradients", 5.0),
        (3, 0, "00-Conv", "gradients", 6.0),
        (3, 4, "04-C3k2", "gradients", 7.0),
    ]
    whole = frame[frame.kind == "global"]
    assert whole[["block", "name", "value"]].to_records(index=False).tolist() == [(-1, "model", 7.0)] * 2
    assert len(frame) == 2 * (3 + 3 + 1)
    assert arrays["epochs"].tolist() == [0, 1]
    assert arrays["blocks"].tolist() == [0, 4]
    assert arrays["names"].tolist() == ["00-Conv", "04-C3k2"]
    assert np.array_equal(arrays["edges"], EDGES)
    assert (arrays["weights"].shape, arrays["weights"].dtype) == ((2, 2, 2, 64), np.int64)
    assert arrays["weights"][:, 1, 0, 40].tolist() == [100, 101]
    assert arrays["weights_zeros"].tolist() == [[5, 6], [5, 6]]
    assert not arrays["gradients"].any()


def test_an_epoch_that_is_repeated_replaces_its_rows(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    for epoch, value in ((0, 1.0), (1, 2.0), (1, 3.0)):
        writer.add(make_epoch(epoch, value=value))
    writer.write()
    frame, arrays = read(tmp_path)
    assert len(frame) == 2 * 7
    assert frame[(frame.epoch == 1) & (frame.statistic == "l1")].value.tolist() == [30.0] * 3
    assert arrays["epochs"].tolist() == [0, 1]


def test_the_order_in_which_epochs_are_added_does_not_matter(tmp_path: Path) -> None:
    for folder, order in (("a", (0, 1)), ("b", (1, 0))):
        writer = StatisticsWriter(tmp_path / folder)
        for epoch in order:
            writer.add(make_epoch(epoch))
        writer.write()
    assert read(tmp_path / "a")[0].equals(read(tmp_path / "b")[0])


def test_a_resumed_run_continues_its_files(tmp_path: Path) -> None:
    first = StatisticsWriter(tmp_path)
    first.add(make_epoch(0))
    first.add(make_epoch(1, value=2.0))
    first.write()
    resumed = StatisticsWriter(tmp_path, resume=True)
    resumed.add(make_epoch(1, value=4.0))
    resumed.add(make_epoch(2, value=5.0))
    resumed.write()
    frame, arrays = read(tmp_path)
    assert frame[(frame.step == 0) & (frame.statistic == "l2")].value.tolist() == [1.0, 4.0, 5.0]
    assert arrays["weights"][:, 1, 0, 40].tolist() == [100, 101, 102]
    assert arrays["weights_zeros"].tolist() == [[5, 6]] * 3


def test_without_resume_the_files_start_anew(tmp_path: Path) -> None:
    for epoch in (0, 1):
        writer = StatisticsWriter(tmp_path)
        writer.add(make_epoch(epoch))
        writer.write()
    assert set(read(tmp_path)[0].epoch) == {1}


def test_nothing_measured_gives_an_empty_table(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path, resume=True)
    writer.write()
    frame, arrays = read(tmp_path)
    assert list(frame.columns) == ["epoch", "step", "block", "name", "kind", "statistic", "value"]
    assert (len(frame), arrays["weights"].shape) == (0, (0, 0, 2, 64))


def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    def fill_the_disk(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "no space left")

    path = tmp_path / TABLE_FILE
    write_atomically(path, lambda file: file.write(b"whole"))
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fill_the_disk)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_the_file_that_is_being_written(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    writer.add(make_epoch(0))
    table, _ = writer.write()
    with table.open("rb") as reader:
        writer.add(make_epoch(1))
        writer.write()
        old = reader.read()  # still the file that was opened, whole
    assert old.startswith(b"PAR1")
    assert old.endswith(b"PAR1")
    assert old != table.read_bytes()


@pytest.mark.parametrize("damaged", [TABLE_FILE, HISTOGRAM_FILE])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, damaged: str) -> None:
    writer = StatisticsWriter(tmp_path)
    writer.add(make_epoch(0))
    writer.write()
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(WorkError, match=damaged):
        StatisticsWriter(tmp_path, resume=True)
    (tmp_path / damaged).unlink()
    with pytest.raises(WorkError, match=damaged):
        read(tmp_path)
