"""The benchmark of replayed thresholds compares bytes, extrapolates from what it timed, judges nothing in a hurry."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.threshold_grid import GRIDS, Measured, n_different, outline, targets
from mlflow_yolo.detection.match_arrays import MatchArrays


def measured(*, n_different: int = 0) -> Measured:
    """Return validations of 2 s, a quarter of which a busy machine made twice as slow, as it did the replays beside."""
    seconds = (2.0,) * 15 + (4.0,) * 5
    return Measured(seconds, {20: (2.5, 2.5, 2.5, 5.0), 400: (4.0, 4.0, 4.0, 8.0)}, n_different, 64, 300)


def some_arrays() -> MatchArrays:
    return MatchArrays(
        tp=np.ones((2, 10), np.bool_),
        conf=np.array([0.9, 0.8], np.float32),
        pred_cls=np.zeros(2, np.float32),
        image=np.zeros(2, np.int64),
        target_cls=np.zeros(1, np.float32),
        target_image=np.zeros(1, np.int64),
        n_images=1,
        n_classes=1,
    )


def test_grids_have_as_many_combinations_as_they_say() -> None:
    assert {n: len(ious) * len(confs) for n, (ious, confs) in GRIDS.items()} == {20: 20, 400: 400}


def test_speed_is_that_of_validations_and_replays_that_took_turns() -> None:
    found = measured()

    assert found.speed(20).value == pytest.approx(2 * 20 / 2.5)
    assert found.speed(400).value == pytest.approx(2 * 400 / 4)


def test_targets_need_speed_and_equal_bytes() -> None:
    assert [(target.limit, target.ok) for target in targets("detect", measured())] == [
        (12, True),
        (100, True),
        (0, True),
    ]
    assert not targets("detect", measured(n_different=1))[-1].ok


def test_one_bit_is_a_difference_and_a_double_that_holds_a_single_is_none() -> None:
    ours = some_arrays()
    theirs = {name: getattr(ours, name).copy() for name in ("tp", "conf", "pred_cls", "target_cls")}
    theirs["conf"] = theirs["conf"].astype(np.float64)
    assert n_different(ours, theirs) == 0

    theirs["tp"][1, 9] = False
    theirs["conf"][0] = np.nextafter(np.float32(0.9), np.float32(1))
    assert n_different(ours, theirs) == 2


def test_an_outline_is_the_boxs_corners_within_the_image() -> None:
    assert [float(word) for word in outline([0.25, 0.5, 0.5, 0.2]).split()] == [0, 0.4, 0.5, 0.4, 0.5, 0.6, 0, 0.6]
    assert min(float(word) for word in outline([0.1, 0.5, 0.4, 0.2]).split()) == 0


@pytest.mark.slow
def test_quick_run_shows_both_tasks_and_judges_nothing(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.threshold_grid", "--quick"], cwd=repository, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert (outcome["name"], outcome["ok"], outcome["targets"]) == ("threshold_grid", None, [])
    for task in ("detect", "segment"):
        figures = outcome["figures"][task]
        assert figures["n_different"] == 0
        assert figures["n_detections"] > 4
        assert set(figures["speed"]) == {"20", "400"}
