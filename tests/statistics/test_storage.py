import errno
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.exceptions import WorkError
from mlflow_yolo.statistics import storage
from mlflow_yolo.statistics.bins import EDGES
from mlflow_yolo.statistics.epoch import NO_BLOCK, EpochStatistics, Grid
from mlflow_yolo.statistics.histogram import Histograms
from mlflow_yolo.statistics.storage import (
    HISTOGRAM_FILE,
    SPOOL_FILE,
    TABLE_FILE,
    StatisticsWriter,
    assemble,
    read,
    write_atomically,
)

NAMES = {0: "00-Conv", 4: "04-C3k2", 9: "09-SPPF"}


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
    return EpochStatistics(epoch, NAMES, (grid, whole), histograms, n_steps=4, frozen=("09-SPPF",))


def add(writer: StatisticsWriter, statistics: EpochStatistics, *, attempt: int = 0) -> None:
    writer.append(statistics, attempt=attempt)
    writer.add_histograms(statistics)


def steps_of(epoch: int, *steps: int, value: float = 1.0) -> EpochStatistics:
    """Return a part of an epoch: the gradient norm of the whole model at some steps."""
    n = len(steps)
    values = {"gradient_norm": np.full((n, 1), value)}
    grid = Grid("global", np.array(steps), np.array([NO_BLOCK]), values, np.ones((n, 1), bool), np.ones(n, bool))
    return EpochStatistics(epoch, NAMES, (grid,), n_steps=max(steps) + 1)


def measured(directory: Path) -> pd.DataFrame:
    frame = read(directory)[0]
    return frame[frame.kind != "state"]


TRUE = (np.ones((1, 1), dtype=bool), np.ones(1, dtype=bool))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path / "statistics")
    add(writer, make_epoch(0))
    add(writer, make_epoch(1, value=5.0))
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
    state = frame[(frame.kind == "state") & (frame.epoch == 1)]
    assert state[["step", "name", "statistic", "value"]].to_records(index=False).tolist() == [
        (3, "model", "n_steps", 4.0),
        (3, "09-SPPF", "frozen", 1.0),
    ]
    assert len(frame) == 2 * (3 + 3 + 1 + 2)
    assert arrays["epochs"].tolist() == [0, 1]
    assert arrays["blocks"].tolist() == [0, 4]
    assert arrays["names"].tolist() == ["00-Conv", "04-C3k2"]
    assert np.array_equal(arrays["edges"], EDGES)
    assert (arrays["weights"].shape, arrays["weights"].dtype) == ((2, 2, 2, 64), np.int64)
    assert arrays["weights"][:, 1, 0, 40].tolist() == [100, 101]
    assert arrays["weights_zeros"].tolist() == [[5, 6], [5, 6]]
    assert not arrays["gradients"].any()


def test_of_a_repeated_epoch_the_last_attempt_counts_alone(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    add(writer, make_epoch(0))
    writer.append(steps_of(1, 0, 1, 2, value=3.0), attempt=0)  # broken off, and repeated with fewer steps
    writer.append(steps_of(1, 0, value=4.0), attempt=1)
    writer.append(steps_of(1, 1, value=5.0), attempt=1)
    writer.append(steps_of(2, 0, value=6.0), attempt=0)  # numbered for each epoch or for the run: both are right
    writer.write()
    frame, arrays = read(tmp_path)
    norms = frame[(frame.statistic == "gradient_norm") & (frame.epoch > 0)]
    assert norms[["epoch", "step", "value"]].to_records(index=False).tolist() == [(1, 0, 4.0), (1, 1, 5.0), (2, 0, 6.0)]
    assert frame[frame.statistic == "n_steps"].value.tolist() == [4.0, 2.0, 1.0]
    assert arrays["epochs"].tolist() == [0]


def test_histograms_of_an_attempt_that_was_given_up_are_left_out(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    add(writer, make_epoch(3))
    writer.append(steps_of(3, 0), attempt=1)
    writer.write()
    assert read(tmp_path)[1]["epochs"].tolist() == []


def test_histograms_of_a_repeated_epoch_are_those_of_its_last_attempt(tmp_path: Path) -> None:
    writer = StatisticsWriter(tmp_path)
    writer.append(steps_of(7, 0), attempt=0)
    add(writer, make_epoch(3), attempt=1)
    repeated = make_epoch(3)
    repeated.histograms["weights"].counts[1, 0, 40] = 42
    add(writer, repeated, attempt=2)
    writer.write()
    assert read(tmp_path)[1]["weights"][:, 1, 0, 40].tolist() == [42]


def test_parts_give_the_same_table_as_the_whole(tmp_path: Path) -> None:
    whole, parts = StatisticsWriter(tmp_path / "whole"), StatisticsWriter(tmp_path / "parts")
    whole.append(steps_of(0, 0, 1, 2), attempt=0)
    for step in (0, 1, 2):
        parts.append(steps_of(0, step), attempt=0)
    for writer in (whole, parts):
        writer.write()
    expected, found = measured(tmp_path / "whole"), measured(tmp_path / "parts")
    assert found.reset_index(drop=True).equals(expected.reset_index(drop=True))
    assert found.step.tolist() == [0, 1, 2]


def test_rows_stand_by_epoch_whatever_the_order_in_which_epochs_are_added(tmp_path: Path) -> None:
    for folder, order in (("a", (0, 1)), ("b", (1, 0))):
        writer = StatisticsWriter(tmp_path / folder)
        for epoch in order:
            add(writer, make_epoch(epoch))
        writer.write()
    assert read(tmp_path / "a")[0].equals(read(tmp_path / "b")[0])


def test_many_rows_are_written_in_several_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, size in (("one", 1 << 18), ("many", 2)):
        monkeypatch.setattr(storage, "_ROWS_PER_GROUP", size)
        writer = StatisticsWriter(tmp_path / folder)
        for epoch in range(5):
            add(writer, make_epoch(epoch))
        writer.write()
    assert read(tmp_path / "one")[0].equals(read(tmp_path / "many")[0])


def test_a_resumed_run_continues_its_files_and_repeats_the_epoch_it_was_killed_in(tmp_path: Path) -> None:
    first = StatisticsWriter(tmp_path)
    assert first.next_attempt == 0
    add(first, make_epoch(0))
    add(first, make_epoch(1, value=2.0), attempt=3)
    resumed = StatisticsWriter(tmp_path, resume=True)
    assert resumed.next_attempt == 4
    add(resumed, make_epoch(1, value=4.0), attempt=resumed.next_attempt)
    add(resumed, make_epoch(2, value=5.0), attempt=resumed.next_attempt)
    resumed.write()
    frame, arrays = read(tmp_path)
    assert frame[(frame.step == 0) & (frame.statistic == "l2")].value.tolist() == [1.0, 4.0, 5.0]
    assert arrays["weights"][:, 1, 0, 40].tolist() == [100, 101, 102]
    assert arrays["weights_zeros"].tolist() == [[5, 6]] * 3


def test_without_resume_the_files_start_anew(tmp_path: Path) -> None:
    for epoch in (0, 1):
        writer = StatisticsWriter(tmp_path)
        assert not (tmp_path / TABLE_FILE).exists()
        add(writer, make_epoch(epoch))
        writer.write()
    assert set(read(tmp_path)[0].epoch) == {1}


def test_what_a_killed_process_has_appended_is_made_into_files_without_torch(tmp_path: Path) -> None:
    add(StatisticsWriter(tmp_path), make_epoch(0))
    with (tmp_path / SPOOL_FILE).open("ab") as file:
        file.write(b"\xf5sp1p half a rec")
    code = f"""
import sys
from pathlib import Path
from mlflow_yolo.statistics.storage import assemble
print([path.name for path in assemble(Path({str(tmp_path)!r}))], "torch" in sys.modules, "mlflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['layers.parquet', 'histograms.npz'] False False"
    frame, arrays = read(tmp_path)
    assert len(frame) == 3 + 3 + 1 + 2
    assert arrays["weights"][0, 1, 0, 40] == 100
    before = (tmp_path / TABLE_FILE).read_bytes()
    assemble(tmp_path)
    assert (tmp_path / TABLE_FILE).read_bytes() == before


def test_where_no_process_left_anything_nothing_is_made(tmp_path: Path) -> None:
    assert assemble(tmp_path / "missing") == ()
    assert not (tmp_path / "missing").exists()


def test_further_tables_are_written_beside_the_others(tmp_path: Path) -> None:
    channels = pd.DataFrame({"block": [0, 0], "channel": [0, 1], "status": ["alive", "dead"]})
    paths = StatisticsWriter(tmp_path).write(extra={"channels": channels})
    assert [path.name for path in paths] == [TABLE_FILE, HISTOGRAM_FILE, "channels.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(paths[2]), channels)


def test_a_part_that_the_disk_refuses_is_kept_and_written_later(tmp_path: Path) -> None:
    directory = tmp_path / "statistics"
    writer = StatisticsWriter(directory)
    directory.write_text("a file where the directory should be")
    add(writer, make_epoch(0))
    assert "exists" in writer.error or "directory" in writer.error
    directory.unlink()
    add(writer, make_epoch(1))
    assert (writer.error, writer.n_dropped) == ("", 0)
    writer.write()
    assert set(read(directory)[0].epoch) == {0, 1}


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
    add(writer, make_epoch(0))
    table, _ = writer.write()
    with table.open("rb") as reader:
        add(writer, make_epoch(1))
        writer.write()
        old = reader.read()  # still the file that was opened, whole
    assert old.startswith(b"PAR1")
    assert old.endswith(b"PAR1")
    assert old != table.read_bytes()


@pytest.mark.parametrize("damaged", [TABLE_FILE, HISTOGRAM_FILE])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, damaged: str) -> None:
    writer = StatisticsWriter(tmp_path)
    add(writer, make_epoch(0))
    writer.write()
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(WorkError, match=damaged):
        read(tmp_path)
    (tmp_path / damaged).unlink()
    with pytest.raises(WorkError, match=damaged):
        read(tmp_path)
    assemble(tmp_path)
    assert len(read(tmp_path)[0]) == 9
