"""Rows of a comparison written by hand, so that every expected number can be read here."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlflow_yolo.detection.bootstrap import Difference
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.runtime.accuracy import Accuracy
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult
from mlflow_yolo.runtime.hardware import Hardware
from mlflow_yolo.runtime.speed import Ratio
from mlflow_yolo.variant import Variant
from mlflow_yolo.variants.comparison import Comparison, Entry, Row
from mlflow_yolo.variants.subject import Subject

HARDWARE = Hardware("Test CPU", "avx2", False, 4, 1, 0.5, "3.12.0", {"onnxruntime": "1.20.0"}, "CPUExecutionProvider")
NAN = math.nan


def a_dataset(task: str = "detect", **changes: Any) -> Any:
    """Return what the workflows read of a data set."""
    empty = SimpleNamespace(images=(), n_images=4, n_backgrounds=1, n_objects=7)
    splits = dict.fromkeys(("train", "val", "test"), empty)
    content = {
        "name": "shapes",
        "task": task,
        "fingerprint": "f00d",
        "names": ("bright", "dark"),
        "yaml": Path("d.yaml"),
    }
    return SimpleNamespace(**{**content, "splits": splits, **changes})


def a_subject(checkpoint: Path, *, task: str = "detect", dataset: Any = None, **changes: Any) -> Subject:
    """Return a checkpoint that is never opened, with its data."""
    model = Model(str(checkpoint), task, (), "ab" * 32, ("bright", "dark"), 128)
    given = {"data": "d.yaml", "dataset": dataset or a_dataset(task), "split": "test", "imgsz": 128, **changes}
    return Subject(model, **given)


def a_cost(name: str, ms: float, *, size_mb: float = 5.0, error: str = "") -> BenchmarkResult:
    """Return what a candidate costs: `ms` in each of two rounds, 2 runs each."""
    return BenchmarkResult(
        name=name,
        latency_p50_ms=ms,
        latency_p95_ms=ms + 1,
        latency_p99_ms=ms + 2,
        latency_mean_ms=ms,
        latency_std_ms=NAN if error else 0.25,
        preprocess_ms=NAN if error else 1.5,
        postprocess_ms=NAN if error else 0.5,
        throughput={} if error else {1: 1000 / ms, 4: 1100 / ms},
        peak_memory_mb=NAN if error else 100.0,
        load_s=NAN if error else 0.1,
        size_mb=size_mb,
        n_runs=0 if error else 4,
        n_warmup=1,
        rounds=() if error else (ms, ms),
        hardware=HARDWARE,
        benchmark="b1",
        date="2026-01-02T03:04:05Z",
        error=error,
    )


def an_accuracy(score: float, *, bright: float = 0.6, dark: float = 0.4, n_images: int = 20) -> Accuracy:
    """Return the scores of a detector."""
    values = {"mAP50-95": score, "mAP50": score + 0.2, "precision": 0.7, "recall": 0.6, "f1": 0.65}
    return Accuracy("test", n_images, values, {"bright": bright, "dark": dark}, 0.25)


def a_variant(kind: str, **changes: Any) -> Variant:
    """Return the description of a variant."""
    given = {
        "file": "model.onnx",
        "task": "detect",
        "names": ("bright", "dark"),
        "imgsz": (128, 128),
        "sha256": "c" * 64,
    }
    return Variant(kind=kind, **{**given, **changes})


def a_row(
    name: str,
    *,
    ms: float = 10.0,
    score: float = 0.5,
    speed: tuple[float, float, float] | None = None,
    change: tuple[float, float, float] | None = None,
    agreement: float = 1.0,
    size_mb: float = 5.0,
    error: str = "",
    **variant: Any,
) -> Row:
    """Return a row; a name that ends in .pt is a checkpoint, any other is the variant of that kind.

    Args:
        name: Its name, and the variant's kind.
        ms: Median latency.
        score: mAP50-95 on test.
        speed: Times as fast as the reference: value, low, high.
        change: mAP50-95 minus the reference's: difference, low, high.
        agreement: With the reference.
        size_mb: Size of the file.
        error: Why it could not be measured; then it has no scores.
        variant: Fields of its `variant.json`.
    """
    entry = (
        Entry(name, Path(name), 128)
        if name.endswith(".pt")
        else Entry(name, Path(name), None, a_variant(name, **variant))
    )
    return Row(
        entry,
        a_cost(name, NAN if error else ms, size_mb=size_mb, error=error),
        None if error else an_accuracy(score),
        Ratio(*speed, 0.95, 2) if speed else None,
        Difference(*change, 0.5, 20, 1000) if change else None,
        NAN if error else agreement,
        error,
    )


def three_rows() -> Comparison:
    """Return a checkpoint of 20 ms, its float32 ONNX of 10 ms, and int8 of 5 ms that loses 0.4 points."""
    rows = (
        a_row("m.pt", ms=20.0, speed=(0.5, 0.45, 0.55), change=(0.0, 0.0, 0.0)),
        a_row("fp32-onnx", ms=10.0, speed=(1.0, 1.0, 1.0)),
        a_row(
            "int8-onnx",
            ms=5.0,
            score=0.496,
            speed=(2.0, 1.9, 2.1),
            change=(-0.004, -0.008, 0.001),
            agreement=0.9,
            size_mb=3.0,
        ),
    )
    return a_comparison(*rows)


def a_comparison(*rows: Row, reference: str = "fp32-onnx", task: str = "detect") -> Comparison:
    """Return rows as a comparison."""
    return Comparison(rows, reference, a_dataset(task), "test")


def correct(*hits: int) -> Accuracy:
    """Return the scores of a classifier that named these images right (1) or wrong (0)."""
    share = float(np.mean(hits))
    return Accuracy(
        "test", len(hits), {"top1": share, "top5": 1.0}, {"bright": share, "dark": NAN}, NAN,
        correct=np.array(hits, dtype=np.float64), predicted=np.array(hits),
    )  # fmt: skip
