"""What the terminal shows while a study runs: lines where it is a file, one bar where it is a terminal."""

import pytest

from mlflow_yolo.studies import progress
from mlflow_yolo.studies.progress import Progress
from mlflow_yolo.studies.study import Trial

TRIALS = [Trial(f"t{n}", f"freeze={n} seed=0", {}, {}) for n in (0, 10)]


def shown(n_finished: int = 0) -> Progress:
    return Progress("cells", n_trials=len(TRIALS), n_finished=n_finished, n_epochs=3)


def values(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "epochs": 3, "metric": "metrics/mAP50-95B", "value": 0.25}


def test_each_end_is_one_line_and_nothing_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown() as bar:
        bar.epoch(TRIALS[0], values(1))
        bar.ended(TRIALS[0], error=None)
        bar.note(TRIALS[1], "2 records wait")
        bar.ended(TRIALS[1], error="no disk")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "freeze=0 seed=0: finished (1/2)",
        "freeze=10 seed=0: 2 records wait",
        "freeze=10 seed=0: FAILED: no disk",
    ]


def test_a_resumed_study_says_what_is_finished_already(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown(n_finished=1) as bar:
        bar.ended(TRIALS[1], error=None)

    assert capsys.readouterr().err.splitlines() == [
        "cells: 1 of 2 trainings are finished already",
        "freeze=10 seed=0: finished (2/2)",
    ]


def test_the_bar_counts_every_epoch_once_however_a_training_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Bar(progress.tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> None:
            counted.append(int(n or 0))

    monkeypatch.setattr(progress, "tqdm", Bar)
    with shown() as bar:
        for epoch in (1, 2, 3):
            bar.epoch(TRIALS[0], values(epoch))
        bar.ended(TRIALS[0], error=None)
        bar.epoch(TRIALS[1], values(1))  # stopped early
        bar.ended(TRIALS[1], error=None)

    assert sum(counted) == 6
    assert min(counted) >= 0
