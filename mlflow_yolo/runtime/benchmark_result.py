"""What a benchmark says of one candidate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlflow_yolo.runtime.hardware import Hardware

Turn = Mapping[str, Any]
"""What one process measured in one round; see `runtime.worker.take_turn`."""


@dataclass(frozen=True)
class BenchmarkResult:
    """What a model costs on one machine; every number is nan where `error` is not empty.

    Attributes:
        name: Name of the candidate.
        latency_p50_ms: Median time of inference alone at batch size 1, over all runs of all rounds.
        latency_p95_ms: 95th percentile.
        latency_p99_ms: 99th percentile.
        latency_mean_ms: Mean.
        latency_std_ms: Standard deviation (n - 1); nan for a single run.
        preprocess_ms: Median time from the array in memory to the model's input, one image.
        postprocess_ms: Median time from the model's output to detections, one image (conf .25, iou .7, max_det 300).
        throughput: Images per second of inference by batch size, median over rounds. A file of fixed batch size gets
            the images of a batch one after another; `fixed_batch` says so.
        peak_memory_mb: Most resident memory of the whole process at batch size 1, interpreter and libraries included;
            the largest over rounds.
        load_s: Median time to open it, imports of its libraries included.
        size_mb: Size of the file or folder, 10^6 bytes.
        n_runs: Runs behind the latency.
        n_warmup: Runs before them, in every round.
        rounds: Median latency of each round, ms; the same place is the same round in every result of a benchmark.
        fixed_batch: Batch size that is built into the file, None where it takes any.
        hardware: The machine.
        benchmark: Identifies the benchmark; only results with the same one were measured side by side.
        date: When it began, ISO 8601 in UTC.
        error: Why there are no numbers; empty for a candidate that was measured.
    """

    name: str
    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    latency_mean_ms: float
    latency_std_ms: float
    preprocess_ms: float
    postprocess_ms: float
    throughput: Mapping[int, float]
    peak_memory_mb: float
    load_s: float
    size_mb: float
    n_runs: int
    n_warmup: int
    rounds: tuple[float, ...]
    hardware: Hardware
    fixed_batch: int | None = None
    benchmark: str = ""
    date: str = ""
    error: str = field(default="")

    def metrics(self) -> dict[str, float]:
        """Return the numbers by the names under which a run logs them, without those that are nan."""
        values = {name: getattr(self, name) for name in _NUMBERS}
        values |= {f"throughput_ips/batch_{size}": value for size, value in self.throughput.items()}
        return {name: float(value) for name, value in values.items() if not math.isnan(value)}

    def tags(self) -> dict[str, str]:
        """Return what a registry compares, by tag; only `bench.error` and the machine where nothing was measured."""
        machine = self.hardware
        tags = {
            "bench.device": "cpu",
            "bench.cpu_model": machine.cpu_model,
            "bench.isa": machine.isa,
            "bench.bf16": str(machine.bf16).lower(),
            "bench.cores": str(machine.cores),
            "bench.threads": str(machine.threads),
            "bench.load1": f"{machine.load1:.2f}",
            "bench.fingerprint": machine.fingerprint,
            "bench.provider": machine.provider,
            "bench.versions": " ".join(f"{name}=={version}" for name, version in sorted(machine.versions.items())),
            "bench.id": self.benchmark,
            "bench.date": self.date,
            "bench.error": self.error,
        }
        return {name: text for name, text in {**tags, **self._measured_tags()}.items() if text}

    def _measured_tags(self) -> dict[str, str]:
        if self.error:
            return {}
        numbers = {
            "p50_ms": self.latency_p50_ms,
            "p95_ms": self.latency_p95_ms,
            "p99_ms": self.latency_p99_ms,
            "mean_ms": self.latency_mean_ms,
            "std_ms": self.latency_std_ms,
            "preprocess_ms": self.preprocess_ms,
            "postprocess_ms": self.postprocess_ms,
            "rss_mb": self.peak_memory_mb,
            "throughput_ips": self.throughput.get(1, math.nan),
        }
        tags = {f"bench.{name}": f"{value:.6g}" for name, value in numbers.items() if not math.isnan(value)}
        counts = {"batch": 1, "runs": self.n_runs, "warmup": self.n_warmup, "rounds": len(self.rounds)}
        tags |= {f"bench.{name}": str(count) for name, count in counts.items()}
        return tags | ({"bench.fixed_batch": str(self.fixed_batch)} if self.fixed_batch else {})


_NUMBERS = (
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_mean_ms",
    "latency_std_ms",
    "preprocess_ms",
    "postprocess_ms",
    "peak_memory_mb",
    "load_s",
    "size_mb",
)


def summarise(name: str, turns: Sequence[Turn], *, size_mb: float, n_warmup: int, **same: Any) -> BenchmarkResult:
    """Return the result of a candidate from its turns, one a round; without turns every number is nan.

    Args:
        name: Name of the candidate.
        turns: What its processes measured, in the order of the rounds.
        size_mb: Size of its file.
        n_warmup: Warm-up runs of every turn.
        same: The fields that are passed on: `hardware`, `benchmark`, `date`, `error`.
    """
    latency = _pooled(turns, "latency_ms")
    p50, p95, p99 = np.percentile(latency, [50, 95, 99]) if len(latency) else [math.nan] * 3
    sizes = [int(size) for size in turns[0]["throughput"]] if turns else []
    return BenchmarkResult(
        name=name,
        latency_p50_ms=float(p50),
        latency_p95_ms=float(p95),
        latency_p99_ms=float(p99),
        latency_mean_ms=float(np.mean(latency)) if len(latency) else math.nan,
        latency_std_ms=float(np.std(latency, ddof=1)) if len(latency) > 1 else math.nan,
        preprocess_ms=_median(_pooled(turns, "preprocess_ms")),
        postprocess_ms=_median(_pooled(turns, "postprocess_ms")),
        throughput={size: _median([turn["throughput"][str(size)] for turn in turns]) for size in sizes},
        peak_memory_mb=max((turn["peak_memory_mb"] for turn in turns), default=math.nan),
        load_s=_median([turn["load_s"] for turn in turns]),
        size_mb=size_mb,
        n_runs=len(latency),
        n_warmup=n_warmup,
        rounds=tuple(_median(turn["latency_ms"]) for turn in turns),
        fixed_batch=turns[0]["fixed_batch"] if turns else None,
        **same,
    )


def _pooled(turns: Sequence[Turn], what: str) -> list[float]:
    return [float(value) for turn in turns for value in turn[what]]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else math.nan
