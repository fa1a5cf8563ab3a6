import math
from dataclasses import replace

import pytest

from mlflow_yolo.keys import sanitise
from mlflow_yolo.runtime.benchmark_result import summarise
from mlflow_yolo.runtime.hardware import Hardware

MACHINE = Hardware("EPYC", "avx2", False, 2, 1, 0.25, "3.11.7", {"numpy": "2.0", "onnxruntime": "1.31"}, "CPU")


def turn(latency_ms, *, peak_memory_mb=100.0, load_s=0.5, throughput=None):
    return {
        "latency_ms": latency_ms,
        "preprocess_ms": [1.0, 2.0],
        "postprocess_ms": [0.5],
        "throughput": throughput or {"1": 50.0, "4": 60.0},
        "peak_memory_mb": peak_memory_mb,
        "load_s": load_s,
        "fixed_batch": None,
    }


def summary(turns, **changes):
    same = {"hardware": MACHINE, "benchmark": "b", "date": "2026-01-01T00:00:00+00:00", "error": "", **changes}
    return summarise("fp32-onnx", turns, size_mb=10.5, n_warmup=3, **same)


def test_latency_is_that_of_all_runs_and_rounds_are_medians() -> None:
    # 1 to 101: the p-th percentile of 101 equally spaced values is 1 + p.
    numbers = [float(i) for i in range(1, 102)]
    result = summary([turn(numbers[:51]), turn(numbers[51:])])
    assert result.latency_p50_ms == 51
    assert result.latency_p95_ms == pytest.approx(96)
    assert result.latency_p99_ms == pytest.approx(100)
    assert result.latency_mean_ms == 51
    assert result.latency_std_ms == pytest.approx(math.sqrt(101 * 102 / 12))  # n (n + 1) / 12 for 1 to n
    assert result.rounds == (26, 76.5)
    assert (result.n_runs, result.n_warmup) == (101, 3)


def test_memory_is_the_largest_and_the_rest_the_median_over_rounds() -> None:
    turns = [
        turn([1.0], peak_memory_mb=100, load_s=0.5, throughput={"1": 50.0, "8": 10.0}),
        turn([1.0], peak_memory_mb=130, load_s=9.0, throughput={"1": 10.0, "8": 90.0}),
        turn([1.0], peak_memory_mb=110, load_s=0.7, throughput={"1": 40.0, "8": 80.0}),
    ]
    result = summary(turns)
    assert result.peak_memory_mb == 130
    assert result.load_s == 0.7
    assert result.throughput == {1: 40.0, 8: 80.0}
    assert result.preprocess_ms == 1.5
    assert result.postprocess_ms == 0.5


def test_metrics_are_numbers_under_names_that_mlflow_takes() -> None:
    metrics = summary([turn([2.0, 4.0])]).metrics()
    assert metrics["latency_p50_ms"] == 3.0
    assert metrics["throughput_ips/batch_4"] == 60.0
    assert metrics["size_mb"] == 10.5
    assert {sanitise(name) for name in metrics} == set(metrics)
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_a_single_run_has_no_spread() -> None:
    result = summary([turn([2.0])])
    assert math.isnan(result.latency_std_ms)
    assert "latency_std_ms" not in result.metrics()
    assert "bench.std_ms" not in result.tags()


def test_tags_name_machine_and_values() -> None:
    tags = summary([turn([2.0, 4.0])]).tags()
    assert tags["bench.device"] == "cpu"
    assert tags["bench.isa"] == "avx2"
    assert tags["bench.threads"] == "1"
    assert tags["bench.provider"] == "CPU"
    assert tags["bench.versions"] == "numpy==2.0 onnxruntime==1.31"
    assert tags["bench.load1"] == "0.25"
    assert tags["bench.p50_ms"] == "3"
    assert tags["bench.rss_mb"] == "100"
    assert tags["bench.throughput_ips"] == "50"
    assert (tags["bench.batch"], tags["bench.runs"], tags["bench.rounds"]) == ("1", "2", "1")
    assert "bench.error" not in tags
    assert "bench.fixed_batch" not in tags


def test_what_failed_has_no_numbers_but_says_why() -> None:
    result = summary([], error="no answer within 4 s")
    assert math.isnan(result.latency_p50_ms)
    assert math.isnan(result.peak_memory_mb)
    assert result.metrics() == {"size_mb": 10.5}
    assert result.tags()["bench.error"] == "no answer within 4 s"
    assert result.tags()["bench.cpu_model"] == "EPYC"
    assert not {"bench.p50_ms", "bench.runs"} & set(result.tags())
    assert replace(result, name="x").error
