from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.registry.fetching import Fetched
from mlflow_yolo.registry.gates.gate import Verdict
from mlflow_yolo.registry.gates.judging import judge
from mlflow_yolo.registry.gates.limits import Limits
from tests.registry.gates.made import HARDWARE, a_cost, a_version, evidence, images, measure

ELSEWHERE = replace(HARDWARE, cpu_model="Other CPU")


def judged(gate: str, version: Fetched, *, here: Any = HARDWARE, **limits: Any) -> Verdict:
    given = evidence(version, read_hardware=lambda threads: replace(here, threads=threads))
    return next(one for one in judge(given, Limits(**limits).only([gate])) if one.gate == gate)


def timed(version: Fetched, **cost: Any) -> Fetched:
    """Return the version with an own cost of 10 ms, p95 11 ms, 100 MB, beside a parent of 20 ms."""
    return measure(version, images(3), images(3), cost=a_cost("int8-onnx", **cost))


@pytest.mark.parametrize(("gate", "key", "value"), [("latency", "p95_ms", 11.0), ("memory", "memory_mb", 100.0)])
def test_a_budget_may_be_used_up(version: Fetched, gate: str, key: str, value: float) -> None:
    timed(version)
    assert judged(gate, version).limit == "no budget set"
    assert judged(gate, version).passed
    assert judged(gate, version, **{key: value}).passed
    found = judged(gate, version, **{key: value - 0.01})
    assert not found.passed
    assert key in found.why


@pytest.mark.parametrize(("load1", "said"), [(4.0, False), (4.1, True)])
def test_a_machine_that_was_busy_is_said_to_have_been(version: Fetched, load1: float, said: bool) -> None:
    timed(version, hardware=replace(HARDWARE, load1=load1))
    assert ("under load" in judged("latency", version, p95_ms=1.0).why) is said


@pytest.mark.parametrize("gate", ["latency", "memory"])
def test_without_a_budget_it_does_not_matter_where_it_was_measured(version: Fetched, gate: str) -> None:
    assert judged(gate, timed(version), here=ELSEWHERE).passed


@pytest.mark.parametrize(
    ("gate", "limits"), [("latency", {"p95_ms": 99.0}), ("memory", {"memory_mb": 999.0}), ("speedup", {})]
)
@pytest.mark.parametrize(
    ("here", "named"),
    [
        (ELSEWHERE, "cpu_model Test CPU there, Other CPU here"),
        (replace(HARDWARE, cores=2), "cores 4 there, 2 here"),
        (replace(HARDWARE, versions={"onnxruntime": "1.21.0", "openvino": "1"}), "onnxruntime 1.20.0 there, 1.21.0"),
        (replace(HARDWARE, versions={"onnxruntime": "1.20.0", "openvino": "1"}), "openvino none there, 1 here"),
    ],
)
def test_what_was_measured_on_another_machine_fails_and_the_difference_is_named(
    version: Fetched, gate: str, limits: dict[str, float], here: Any, named: str
) -> None:
    found = judged(gate, timed(version), here=here, **limits)
    assert not found.passed
    assert named in found.why
    assert "--rebenchmark" in found.why


def test_load_and_provider_do_not_make_another_machine(version: Fetched) -> None:
    assert judged("latency", timed(version), here=replace(HARDWARE, load1=9.0, provider="x"), p95_ms=99.0).passed


def test_the_machine_is_asked_with_the_threads_of_the_benchmark(version: Fetched) -> None:
    timed(version, hardware=replace(HARDWARE, threads=2))
    assert judged("latency", version, p95_ms=99.0).passed


def test_a_machine_that_the_limits_name_counts_instead_of_this_one(version: Fetched) -> None:
    timed(version)
    there = HARDWARE.fingerprint
    assert judged("latency", version, here=ELSEWHERE, p95_ms=99.0, hardware=there).passed
    found = judged("latency", version, p95_ms=99.0, hardware=ELSEWHERE.fingerprint)
    assert not found.passed
    assert there in found.why
    assert ELSEWHERE.fingerprint in found.why


def test_the_lower_end_of_the_speed_has_to_lie_above_the_limit(version: Fetched) -> None:
    # The parent takes 20 ms in each round. Of ten rounds the interval begins at the second smallest ratio.
    timed(version, rounds=(40.0, 19.0, *[10.0] * 8))
    low = 20 / 19
    found = judged("speedup", version, min_speedup=low - 1e-6)
    assert (found.passed, found.value) == (True, "2.00x [1.05, 2.00]")
    assert not judged("speedup", version, min_speedup=low + 1e-6).passed


def test_exactly_the_limit_is_not_above_it(version: Fetched) -> None:
    timed(version, rounds=(20 / 1.05,) * 10)
    assert not judged("speedup", version).passed
    assert judged("speedup", version, min_speedup=1.049).passed


def test_as_fast_as_its_parent_is_not_faster(version: Fetched) -> None:
    found = judged("speedup", timed(version, rounds=(20.0,) * 10))
    assert not found.passed
    assert "fp32-onnx" in found.why


def test_a_parent_of_another_benchmark_is_no_pair(version: Fetched) -> None:
    found = judged("speedup", timed(version, benchmark="b2"))
    assert not found.passed
    assert "side by side" in found.why


def test_rounds_that_are_no_pairs_fail(version: Fetched) -> None:
    assert not judged("speedup", timed(version, rounds=(1.0,) * 9)).passed


@pytest.mark.parametrize("gate", ["latency", "memory", "speedup"])
def test_what_could_not_be_timed_fails_with_the_reason(version: Fetched, gate: str) -> None:
    nothing = {"latency_p95_ms": np.nan, "peak_memory_mb": np.nan, "rounds": ()}
    found = judged(gate, timed(version, error="it crashed", **nothing), p95_ms=9.0, memory_mb=9.0)
    assert not found.passed
    assert "it crashed" in found.why


@pytest.mark.parametrize("gate", ["latency", "memory"])
def test_what_is_not_a_number_keeps_to_no_budget(version: Fetched, gate: str) -> None:
    timed(version, latency_p95_ms=np.nan, peak_memory_mb=np.nan)
    assert not judged(gate, version, p95_ms=9.0, memory_mb=9.0).passed


def test_a_float32_export_has_nothing_to_beat_where_its_checkpoint_was_not_timed_with_it(tmp_path: Path) -> None:
    alone = measure(a_version(tmp_path / "1", kind="fp32-onnx"), images(3))
    assert judged("speedup", alone).limit == "no parent timed"
    assert judged("speedup", alone).passed
    elsewhen = a_cost("fp32-onnx", benchmark="b2")
    other = measure(a_version(tmp_path / "2", kind="fp32-onnx"), images(3), images(3), cost=elsewhen, parent_kind="pt")
    assert judged("speedup", other).passed


def test_a_float32_export_that_was_timed_with_its_checkpoint_has_to_beat_it(tmp_path: Path) -> None:
    slow = measure(a_version(tmp_path / "1", kind="fp32-onnx"), images(3), images(3), ms=30.0, parent_kind="pt")
    assert not judged("speedup", slow).passed


def test_any_other_kind_without_a_parent_fails(version: Fetched) -> None:
    found = judged("speedup", measure(version, images(3)))
    assert not found.passed
    assert "--rebenchmark" in found.why


def test_a_float32_kind_of_another_runtime_has_to_beat_its_parent_of_the_same_benchmark_only(tmp_path: Path) -> None:
    version = measure(
        a_version(tmp_path / "1", kind="fp32-openvino"), images(3), images(3), cost=a_cost("x", benchmark="b2")
    )
    assert not judged("speedup", version).passed  # its parent is an ONNX file, which could have been timed with it
