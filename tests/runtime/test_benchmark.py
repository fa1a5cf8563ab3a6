"""The benchmark with real processes and models that only pretend, told by a JSON file what to do."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError, CheckpointError, DatasetError
from mlflow_yolo.runtime.benchmark import MOST_IMAGES, BenchmarkResult, Candidate, run_benchmark, turn_order
from mlflow_yolo.runtime.speed import speedup
from mlflow_yolo.variant import Variant, write_variant

PRETENDING = """
import json, os, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np


class Pipeline:
    def __init__(self, told):
        self.told = told
        self.session = SimpleNamespace(batch=told.get("batch"))
        self.matrix = np.full((60, 60), 0.01)

    def preprocess(self, images):
        return np.stack([np.resize(image, 64) for image in images]), images

    def infer(self, batch):
        for _ in range(self.told.get("work", 1)):
            self.matrix = self.matrix @ self.matrix
        time.sleep(self.told.get("sleep_s", 0.0) * len(batch))
        return (batch,)

    def postprocess(self, outputs, frames, *, conf, iou, max_det):
        return []


def open_pipeline(path, *, threads, imgsz, **options):
    assert "torch" not in sys.modules, "the worker has imported torch"
    told = json.loads(Path(path).read_text())
    seen = {"threads": threads, "imgsz": imgsz, "options": options, "omp": os.environ["OMP_NUM_THREADS"],
            "cores": len(os.sched_getaffinity(0)), "pid": os.getpid(), "path": path}
    if "log" in told:
        with open(told["log"], "a") as log:
            log.write(json.dumps(seen) + "\\n")
    print("libraries print what they like")
    match told.get("fails", ""):
        case "raise": raise RuntimeError("no such layer\\nwith details")
        case "crash": os.abort()
        case "exit": sys.exit("I give up")
        case "hang": time.sleep(600)
    return Pipeline(told)
"""


@pytest.fixture(autouse=True)
def pretending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the pretending models where the workers can import them."""
    (tmp_path / "pretending.py").write_text(PRETENDING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.new("RGB", (16, 16), "grey").save(path)
    return paths


@pytest.fixture
def candidate(tmp_path: Path) -> Callable[..., Candidate]:
    """Return a function that makes a candidate whose model does as it is told, and logs each of its turns."""

    def make(name: str, *, imgsz: Any = None, options: Any = None, **told: Any) -> Candidate:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"log": str(tmp_path / f"{name}.log"), **told}))
        return Candidate(name, path, "pretending:open_pipeline", imgsz, options or {})

    return make


def turns_of(candidate: Candidate) -> list[dict[str, Any]]:
    log = candidate.path.with_suffix(".log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


QUICK: dict[str, Any] = {"runs": 6, "rounds": 2, "warmup": 1, "batches": (1, 2)}


def test_a_deliberately_slowed_variant_ranks_last(candidate, images) -> None:
    slowed = candidate("slowed", sleep_s=0.02)
    results = run_benchmark([candidate("one"), slowed, candidate("two")], images, **QUICK)
    assert [result.name for result in results] == ["one", "slowed", "two"]
    assert max(results, key=lambda result: result.latency_p50_ms).name == "slowed"
    assert min(results, key=lambda result: result.throughput[2]).name == "slowed"
    one, slow, _ = results
    assert slow.latency_p50_ms >= 20  # sleep never wakes up early
    assert slow.throughput[1] <= 50
    assert slow.throughput[2] <= 50
    assert speedup(one, slow).value < 1
    assert all(math.isfinite(value) for result in results for value in result.metrics().values())


@pytest.mark.slow
def test_two_copies_of_one_file_differ_by_less_than_their_interval_in_nine_of_ten_comparisons(
    candidate, images
) -> None:
    # At .99, that chance alone does not fail the test; the interval's level is tested in test_speed.py.
    copies = [candidate(name, work=40) for name in "abcde"]
    results = run_benchmark(copies, images, runs=64, rounds=8, warmup=2, batches=(1,))
    ratios = [speedup(one, other, level=0.99) for one, other in combinations(results, 2)]
    assert len(ratios) == 10
    assert sum(ratio.low <= 1 <= ratio.high for ratio in ratios) >= 9


def test_what_fails_becomes_a_result_with_an_error_and_the_others_go_on(candidate, images, tmp_path) -> None:
    lost = Candidate("lost", candidate("any").path, "nowhere:open_pipeline")
    candidates = [
        candidate("raises", fails="raise"),
        candidate("crashes", fails="crash"),
        candidate("works"),
        candidate("exits", fails="exit"),
        candidate("hangs", fails="hang"),
        lost,
    ]
    results = {r.name: r for r in run_benchmark(candidates, images, **QUICK, time_limit_s=8)}
    assert results["works"].error == ""
    assert results["works"].n_runs == 6
    assert results["raises"].error == "RuntimeError: no such layer"
    assert results["crashes"].error.startswith("the process ended with signal SIGABRT")
    assert results["exits"].error == "the process ended with exit code 1: I give up"
    assert results["hangs"].error == "no answer within 8 s"
    assert "nowhere" in results["lost"].error
    assert all(math.isnan(r.latency_p50_ms) and not r.rounds for r in results.values() if r.error)
    assert len(turns_of(candidates[0])) == 1, "what has failed is not tried again"
    assert not is_alive(turns_of(candidates[4])[0]["pid"])


def test_a_worker_gets_what_it_needs_and_nothing_more(candidate, images) -> None:
    plain = candidate("plain", batch=1)
    told = candidate("told", imgsz=(64, 32), options={"trust": True})
    (first, _) = run_benchmark([plain, told], images, **QUICK)
    turns = turns_of(plain)
    assert len(turns) == 2
    assert len({turn["pid"] for turn in turns} | {os.getpid()}) == 3, "every turn has a process of its own"
    assert all((turn["threads"], turn["omp"], turn["cores"]) == (1, "1", 1) for turn in turns)
    assert turns[0]["imgsz"] is None
    assert turns_of(told)[0]["imgsz"] == [64, 32]
    assert turns_of(told)[0]["options"] == {"trust": True}
    assert first.fixed_batch == 1
    assert first.tags()["bench.fixed_batch"] == "1"
    assert first.hardware.provider == ""
    assert first.peak_memory_mb > 5
    assert first.size_mb == plain.path.stat().st_size / 1e6


def test_progress_tells_every_turn(candidate, images) -> None:
    told: list[tuple[int, int, str]] = []
    run_benchmark([candidate("a"), candidate("b")], images, **QUICK, progress=lambda *what: told.append(what))
    assert [(done, total) for done, total, _ in told] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert sorted(name for _, _, name in told) == ["a", "a", "b", "b", "done"]


def test_an_interrupted_benchmark_goes_on_at_its_round(candidate, images, tmp_path) -> None:
    a, b = candidate("a"), candidate("b")
    state = tmp_path / "new" / "state.json"
    options = {**QUICK, "rounds": 3}

    def interrupt(done: int, total: int, name: str) -> None:
        if done == 5:  # one of the two has had its third turn
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark([a, b], images, **options, state=state, progress=interrupt)
    rounds = [turn["latency_ms"] for turn in json.loads(state.read_text())["measured"]["a"]["turns"]]
    assert len(rounds) == 2, "a round counts when all candidates have had their turn"
    results = run_benchmark([a, b], images, **options, state=state)
    assert len(turns_of(a)) + len(turns_of(b)) == 5 + 2
    assert [len(result.rounds) for result in results] == [3, 3]
    assert results[0].rounds[:2] == tuple(sorted(ms)[0] * 0.5 + sorted(ms)[1] * 0.5 for ms in rounds)
    again = run_benchmark([a, b], images, **options, state=state)
    assert again == results
    assert len(turns_of(a)) + len(turns_of(b)) == 7, "a finished benchmark is not repeated"
    assert run_benchmark([b], images, **options, state=state) == results[1:]
    assert len(turns_of(b)) + len(turns_of(a)) == 7, "leaving a candidate out keeps the others"
    assert list(state.parent.iterdir()) == [state]


def test_what_has_changed_is_measured_anew_beside_the_others(candidate, images, tmp_path) -> None:
    state = tmp_path / "state.json"
    a, b = candidate("a"), candidate("b")
    options = {**QUICK, "rounds": 1}
    first = run_benchmark([a, b], images, **options, state=state)[0].benchmark
    a.path.write_text(json.dumps({"work": 2, "log": str(tmp_path / "a.log")}))
    second = run_benchmark([a, b], images, **options, state=state)[1].benchmark
    third = run_benchmark([a, b, candidate("c")], images, **options, state=state)[0].benchmark
    fourth = run_benchmark([a, b], images, **{**options, "warmup": 3}, state=state)[0].benchmark
    state.write_text(state.read_text()[:100])
    fifth = run_benchmark([a, b], images, **{**options, "warmup": 3}, state=state)[0].benchmark
    assert len({first, second, third, fourth, fifth}) == 5
    assert len(turns_of(a)) == len(turns_of(b)) == 5


def test_what_failed_before_the_interruption_is_not_tried_again(candidate, images, tmp_path) -> None:
    state = tmp_path / "state.json"
    bad, good = candidate("bad", fails="raise"), candidate("good")
    for _ in range(2):
        results = run_benchmark([bad, good], images, **QUICK, state=state)
        assert [bool(result.error) for result in results] == [True, False]
    assert len(turns_of(bad)) == 1
    assert all(result.error for result in run_benchmark([bad], images, **QUICK, state=state))


def test_of_a_variants_folder_only_the_model_counts(candidate, images, tmp_path) -> None:
    folder, state = tmp_path / "variant", tmp_path / "state.json"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x" * 1500)
    written = write_variant(folder, Variant("fp32-onnx", "model.onnx", "detect", ("a",), (64, 64)))
    one = Candidate("one", folder, "nowhere:open_pipeline")
    (first,) = run_benchmark([one], images, **QUICK, state=state)
    assert first.size_mb == 0.0015
    write_variant(folder, replace(written, operating_point={"conf": 0.4}))
    (folder / "notes.txt").write_text("measured")
    assert run_benchmark([one], images, **QUICK, state=state) == [first]
    write_variant(folder, replace(written, runtime={"INFERENCE_PRECISION_HINT": "bf16"}))
    assert run_benchmark([one], images, **QUICK, state=state)[0].benchmark != first.benchmark
    (folder / "variant.json").write_text("{")
    assert "nowhere" in run_benchmark([one], images, **QUICK, state=state)[0].error


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_no_worker_behind(candidate, images, tmp_path, how: int) -> None:
    hanging = candidate("hanging", fails="hang")
    program = textwrap.dedent(f"""
        from pathlib import Path
        from mlflow_yolo.runtime.benchmark import Candidate, run_benchmark
        one = Candidate("hanging", Path({str(hanging.path)!r}), "pretending:open_pipeline")
        run_benchmark([one], [Path({str(images[0])!r})], runs=1, rounds=1)
    """)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    driver = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(turns_of(hanging)) == 1)
        pid = turns_of(hanging)[0]["pid"]
        assert is_alive(pid)
        driver.send_signal(how)
        assert driver.wait(timeout=20) != 0
        wait_until(lambda: not is_alive(pid))
    finally:
        driver.kill()
        driver.wait()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], *, limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_the_order_lets_each_candidate_follow_each_other_equally_often(n: int) -> None:
    n_rounds = n if n % 2 == 0 else 2 * n
    orders = [turn_order(n, index) for index in range(n_rounds)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    followers = [pair for order in orders for pair in pairwise(order)]
    assert {followers.count(pair) for pair in followers} in ({n_rounds // n}, set())
    assert len(set(followers)) == n * (n - 1)
    assert all([order[place] for order in orders].count(i) == n_rounds // n for place in range(n) for i in range(n))


def test_of_many_images_a_few_are_taken_from_all_over(candidate, tmp_path) -> None:
    many = [tmp_path / f"{i}.png" for i in range(80)]
    Image.new("RGB", (8, 8)).save(many[0])
    for i, path in enumerate(many):
        if i % 10 == 0:
            Image.new("RGB", (8, 8)).save(path)  # the others do not exist: they are not looked at
    (result,) = run_benchmark([candidate("a")], many, **QUICK)
    assert MOST_IMAGES == 8
    assert isinstance(result, BenchmarkResult)
    assert result.error == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 10_000}, "threads=10000"),
        ({"batches": (1, 0)}, "0 is out of range"),
    ],
)
def test_a_number_out_of_range_is_refused(candidate, images, change, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_benchmark([candidate("a")], images, **{**QUICK, **change})


def test_candidates_and_images_are_checked_before_anything_runs(candidate, images, tmp_path) -> None:
    a = candidate("a")
    with pytest.raises(ArgumentError, match="two candidates are called 'a'"):
        run_benchmark([a, a], images, **QUICK)
    with pytest.raises(CheckpointError, match=r"gone\.onnx does not exist"):
        run_benchmark([a, Candidate("gone", tmp_path / "gone.onnx")], images, **QUICK)
    with pytest.raises(DatasetError, match="no images"):
        run_benchmark([a], [], **QUICK)
    with pytest.raises(DatasetError, match=r"lost\.png does not exist"):
        run_benchmark([a], [tmp_path / "lost.png"], **QUICK)
    assert turns_of(a) == []
    assert run_benchmark([], images, **QUICK) == []
