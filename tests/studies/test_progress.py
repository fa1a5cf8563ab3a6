"""What the terminal shows while a study runs: lines where it is a file, one bar where it is a terminal."""

from pathlib import Path

import pytest

from mlflow_yolo.studies import progress
from mlflow_yolo.studies.progress import Progress
from mlflow_yolo.studies.study import Study, Trial

TRIALS = [Trial(f"t{n}", f"freeze={n} seed=0", {}, {}) for n in (0, 10)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, "cells", "uid", {}, 1, TRIALS)


def values(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "epochs": 3, "metric": "metrics/mAP50-95B", "value": 0.25}


def test_each_end_is_one_line_and_nothing_goes_to_standard_output(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(study, n_epochs=3) as shown:
        shown.epoch(TRIALS[0], values(1))
        shown.ended(TRIALS[0], error=None)
        shown.note(TRIALS[1], "2 records wait")
        shown.ended(TRIALS[1], error="no disk")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "freeze=0 seed=0: finished (1/2)",
        "freeze=10 seed=0: 2 records wait",
        "freeze=10 seed=0: FAILED: no disk",
    ]


def test_a_resumed_study_says_what_is_finished_already(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t0" / "attempt-1").mkdir(parents=True)
    (tmp_path / "t0" / "attempt-1" / "result.json").write_text('{"status": "finished"}')

    with Progress(study, n_epochs=3) as shown:
        shown.ended(TRIALS[1], error=None)

    assert capsys.readouterr().err.splitlines() == [
        "cells: 1 of 2 trainings are finished already",
        "freeze=10 seed=0: finished (2/2)",
    ]


def test_the_bar_counts_every_epoch_once_however_a_training_ends(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Bar(progress.tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> None:
            counted.append(int(n or 0))

    monkeypatch.setattr(progress, "tqdm", Bar)
    with Progress(study, n_epochs=3) as shown:
        for epoch in (1, 2, 3):
            shown.epoch(TRIALS[0], values(epoch))
        shown.ended(TRIALS[0], error=None)
        shown.epoch(TRIALS[1], values(1))  # stopped early
        shown.ended(TRIALS[1], error=None)

    assert sum(counted) == 6
    assert min(counted) >= 0
