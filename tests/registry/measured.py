"""An output folder as `compress` leaves it, made by hand: files that nobody runs, and records with known numbers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_yolo.registry.record import Measured, Record, Scores, write_record
from mlflow_yolo.runtime.benchmark_result import BenchmarkResult
from mlflow_yolo.runtime.hardware import Hardware
from mlflow_yolo.variant import Variant, read_variant, write_variant

HARDWARE = Hardware("Test CPU", "avx2", False, 4, 1, 0.5, "3.12.0", {"onnxruntime": "1.20.0"}, "CPUExecutionProvider")
NAN = math.nan


def a_cost(name: str, ms: float, *, size_mb: float = 5.0, error: str = "", benchmark: str = "b1") -> BenchmarkResult:
    """Return a cost of `ms` in each of two rounds."""
    ms = NAN if error else ms
    return BenchmarkResult(
        name=name,
        latency_p50_ms=ms,
        latency_p95_ms=ms + 1,
        latency_p99_ms=ms + 2,
        latency_mean_ms=ms,
        latency_std_ms=NAN,
        preprocess_ms=1.5,
        postprocess_ms=0.5,
        throughput={1: 1000 / ms, 4: 1100 / ms},
        peak_memory_mb=100.0,
        load_s=0.1,
        size_mb=size_mb,
        n_runs=4,
        n_warmup=1,
        rounds=() if error else (ms, ms),
        hardware=HARDWARE,
        benchmark=benchmark,
        date="2026-01-02T03:04:05+00:00",
        error=error,
    )


def scores(value: float) -> Scores:
    """Return a detector's scores with one class that does not occur."""
    per_class = {"bright": 0.6, "dark": 0.4, "absent": NAN}
    return Scores("mAP50-95", {"mAP50-95": value, "mAP50": value + 0.2}, per_class, "test", 20, "f00d", 0.25)


def measured(name: str, kind: str, sha256: str, *, ms: float = 10.0, score: float = 0.5, **cost: Any) -> Measured:
    """Return a row."""
    found = a_cost(name, ms, **cost)
    return Measured(name, kind, sha256, found, None if found.error else scores(score))


CHECKPOINT = measured("m.pt", "pt", "a" * 64, ms=20.0)


def write_output(
    folder: Path,
    rows: Sequence[tuple[str, float, str]] = (("fp32-onnx", 10.0, "m.pt"), ("int8-onnx", 5.0, "fp32-onnx")),
) -> Path:
    """Write an output folder.

    Args:
        folder: The folder.
        rows: Kind (the name, too), latency, and the parent's name; a negative latency for one that failed.
    """
    known = {"m.pt": CHECKPOINT}
    for name, ms, parent in rows:
        made = write_file(folder / "variants" / name, name)
        error = "no kernel" if ms < 0 else ""
        known[name] = measured(name, made.kind, made.sha256, ms=ms, error=error)
        tags = {"model.sha256": made.sha256, "bench.id": "b1", "acc.mAP50-95": "0.500000", "bench.p50_ms": f"{ms:g}"}
        tags |= {"parent.name": parent, "model.size_mb": "5.000", "op.conf": "stale", "variant.kind": made.kind}
        record = Record(
            known[name],
            known[parent],
            0.9,
            {"score_max": 1e-6, "box_max_px": 1e-4, "n_images": 16} if name == "fp32-onnx" else None,
            None,
            tags,
            {"data": "shapes", "machine": "Test CPU", "folder": f"variants/{name}", "error": error},
        )
        records = folder / "benchmark" / "records" / name
        write_record(records, record)
        (records / "predictions.npz").write_bytes(b"predictions of " + name.encode())
    return folder


def write_file(folder: Path, name: str, kind: str | None = None) -> Variant:
    """Write a variant's folder with bytes of its own; an OpenVINO one holds a folder."""
    folder.mkdir(parents=True)
    kind = kind or next(k for k in ("fp32-onnx", "int8-onnx", "int8-openvino") if name.endswith(k))
    file = "model_openvino" if kind.endswith("openvino") else "model.onnx"
    if file == "model.onnx":
        (folder / file).write_bytes(name.encode())
    else:
        (folder / file).mkdir()
        for one in ("model.xml", "model.bin"):
            (folder / file / one).write_bytes(f"{name} {one}".encode())
    point = {"conf": 0.25, "iou": 0.7, "per_class": {"bright": 0.3}, "split": "val"}
    variant = Variant(kind, file, "detect", ("bright", "dark", "absent"), (128, 128), operating_point=point)
    return write_variant(folder, variant)


def change_byte(folder: Path) -> None:
    """Change a variant's file, and not what `variant.json` says of it."""
    file = folder / read_variant(folder).file
    file.write_bytes(file.read_bytes() + b"!")
