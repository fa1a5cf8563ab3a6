import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.arms import MLFLOW_YOLO, Trained, Watcher
from benchmarks.step_overhead import ALL, DEFAULT, Comparison, added_ratio, check, epoch_ratio, step_ratio
from benchmarks.switch import Record, Span, Step


def recorded(*, n_pairs: int, sampled: set[int], extra_ms: dict[bool, float]) -> Trained:
    """Return an epoch of steps of 100 ms; a watched one costs `extra_ms[is sampled]` more, the epoch's end 50 ms."""
    steps = []
    for n in range(n_pairs):
        for watched in (True, False):
            ms = 100.0 + (extra_ms[n in sampled] if watched else 0.0)
            inside = 0.4 * (ms - 100.0)  # the rest of it after the backward pass, which takes 20 ms without
            span, tail = Span(ms / 1000, ms / 1000), Span((ms - 80.0 - inside) / 1000, 0.0)
            steps.append(Step(0, n, 0, watched, n, span, tail, inside / 1000))
    record = Record(steps, [Span(2.05, 2.0)], [Span(2.0, 2.0)], [0.05], [0.1])
    return Trained(record, frozenset((0, n) for n in sampled), threads=1)


def test_step_ratio_is_that_of_the_median_pair() -> None:
    trained = recorded(n_pairs=11, sampled=set(range(11)), extra_ms={True: 3.0})

    assert step_ratio(trained).value == pytest.approx(1.03)
    assert step_ratio(trained).n == 10  # the first is a warm-up


def test_added_ratio_sees_what_is_lost_in_the_noise_of_whole_steps() -> None:
    trained = recorded(n_pairs=11, sampled=set(range(11)), extra_ms={True: 3.0})
    noisy = [replace(s, span=Span(s.span.seconds * (0.7 if s.watched else 1.0), 0.0)) for s in trained.record.steps]
    trained.record.steps[:] = noisy

    assert step_ratio(trained).value < 0.8
    assert added_ratio(trained).value == pytest.approx(1.03)


def test_epoch_ratio_charges_rare_samples_and_the_epochs_end_to_the_steps() -> None:
    trained = recorded(n_pairs=51, sampled=set(range(1, 51, 5)), extra_ms={True: 10.0, False: 1.0})

    # 10 of the 50 pairs that count are sampled: of 102 steps 20.4, and the last one.
    extra = 21.4 * 10.0 + (102 - 21.4) * 1.0 + 50.0
    assert epoch_ratio(trained).value == pytest.approx(1 + extra / (102 * 100.0))
    assert step_ratio(trained).value == pytest.approx(1.01)  # blind to the samples, which are too few


def test_watched_step_without_statistics_makes_a_claim_impossible() -> None:
    comparison = Comparison(ALL, 160, 4, 1, 1)
    check("all", comparison, recorded(n_pairs=4, sampled={0, 1, 2, 3}, extra_ms={True: 0.0}))

    with pytest.raises(RuntimeError, match="1 of 4"):
        check("all", comparison, recorded(n_pairs=4, sampled={0, 1, 3}, extra_ms={True: 0.0, False: 0.0}))


@pytest.mark.parametrize("watcher", [DEFAULT, Watcher(MLFLOW_YOLO, {"log_statistics": "off"})])
def test_training_without_any_statistics_makes_a_claim_impossible(watcher: Watcher) -> None:
    trained = recorded(n_pairs=4, sampled=set(), extra_ms={False: 0.0})

    with pytest.raises(RuntimeError, match="4 of 4"):
        check("x", Comparison(watcher, 160, 4, 1, 1), trained)


@pytest.mark.slow
def test_quick_run_trains_with_and_without_the_watcher_and_judges_nothing(repository: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}

    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.step_overhead", "--quick"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert finished.returncode == 0, finished.stderr
    content = json.loads(finished.stdout.splitlines()[-1])
    figures = content["figures"]
    assert content["ok"] is None
    assert content["targets"] == []
    for name in ("all, 64 px", "default, 64 px"):
        assert figures[name]["watched_steps"] == figures[name]["sampled_steps"] == 4
        assert figures[name]["steps_per_epoch"] == 8
    assert set(figures["ms_alone"]) >= {"gradients", "updates", "drift", "histograms", "activations"}
    assert not list(tmp_path.glob("step-overhead-*")), "its files are removed"
