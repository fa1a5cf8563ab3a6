"""What a comparison leaves behind: files beside it, a child run per candidate, table and figures at the parent."""

import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_yolo import keys
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.latency_rounds import latency_rounds
from mlflow_yolo.figures.pareto import Point, pareto
from mlflow_yolo.figures.pareto_html import pareto_html
from mlflow_yolo.figures.table import markdown_table
from mlflow_yolo.tracking.delivery.run_file import read_run_file
from mlflow_yolo.tracking.events.command_run import child_run
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.tracking.stores.target import Target
from mlflow_yolo.variants.comparison import Comparison, Row
from mlflow_yolo.variants.origins import operating_tags, origin_tags, text
from mlflow_yolo.variants.table import answer, best_row, change_text, frame, machine, shown, terminal_text

FOLDER = "benchmark"
FILES = ("table.csv", "summary.txt", "pareto.png", "pareto.html", "latency_rounds.png")
"""What goes to the parent run; the records beside them hold every prediction and go with the models."""


def write_results(comparison: Comparison, directory: Path) -> Path:
    """Write `benchmark/` below `directory` and return it: table.csv, summary.txt and the figures."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    table = frame(comparison)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "summary.txt").write_text(terminal_text(comparison) + "\n", encoding="utf-8")
    points = [_point(row) for row in comparison.rows]
    about = {"machine": machine(comparison), "reference": comparison.reference}
    axes = {"metric": comparison.metric, "split": comparison.split, **about}
    (folder / "pareto.png").write_bytes(png_bytes(pareto(points, **axes)))
    (folder / "pareto.html").write_text(pareto_html(points, **axes), encoding="utf-8")
    rounds = {row.entry.name: row.cost.rounds for row in comparison.rows}
    (folder / "latency_rounds.png").write_bytes(png_bytes(latency_rounds(rounds, **about)))
    return folder


def log_results(
    run: TrackedRun,
    comparison: Comparison,
    folder: Path,
    tracking: Target,
    *,
    lineage: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Log a comparison that was written to `folder`: files and note at `run`, and one child run per candidate.

    Args:
        run: The open parent run.
        comparison: What was measured.
        folder: What `write_results` returned.
        tracking: Where the children go.
        lineage: Further tags by candidate: pruning, teacher, calibration.
    """
    for file in FILES:
        run.log_file(folder / file, FOLDER)
    run.set_tags({keys.TAG_NOTE: note(comparison)})
    best = best_row(comparison)
    if best is not None and best.speed is not None:
        run.set_tags({"variants.best": best.entry.name})
        run.log_metrics({"variants/best_speedup": best.speed.value})
    for row in comparison.rows:
        _log_row(run, row, comparison, folder.parent / "runs" / keys.segment(row.entry.name), tracking, lineage or {})


def note(comparison: Comparison) -> str:
    """Return the parent run's note: the result in sentences, and the table."""
    table = shown(comparison)
    return "\n\n".join(
        [
            "\n".join(answer(comparison)),
            markdown_table(table.columns, table.rows),
            f"Plots: `{FOLDER}/pareto.html`, `{FOLDER}/pareto.png`, `{FOLDER}/latency_rounds.png`; every number: "
            f"`{FOLDER}/table.csv`",
        ]
    )


def _log_row(
    parent: TrackedRun,
    row: Row,
    comparison: Comparison,
    directory: Path,
    tracking: Target,
    lineage: Mapping[str, Mapping[str, str]],
) -> None:
    known = read_run_file(directory)
    with child_run(parent, tracking, directory, name=row.entry.name, uid=known.uid if known else None) as run:
        run.log_params({"variant": row.entry.name, "kind": row.entry.kind, "imgsz": max(row.entry.size)})
        run.log_metrics(metrics(row, comparison))
        run.set_tags({**tags(row, comparison), **lineage.get(row.entry.name, {})})
        if row.accuracy is not None and len(row.accuracy.per_class) > keys.MAX_CLASSES_AS_METRICS:
            lines = ["class,score", *(f"{name},{value:.6f}" for name, value in row.accuracy.per_class.items())]
            run.log_text("\n".join(lines) + "\n", "per_class.csv")
        if row.entry.variant is not None:
            for file in (row.entry.path / row.entry.variant.file, row.entry.path / "variant.json"):
                run.log_file(file, "variant")


def metrics(row: Row, comparison: Comparison) -> dict[str, float]:
    """Return a candidate's numbers by the names its run carries."""
    values = dict(row.cost.metrics())
    if row.accuracy is not None:
        values |= {f"{comparison.split}/{name}": value for name, value in row.accuracy.values.items()}
        values[f"{comparison.split}/worst_class"] = row.accuracy.worst_class[1]
        if len(row.accuracy.per_class) <= keys.MAX_CLASSES_AS_METRICS:
            names = keys.class_segments(row.accuracy.per_class)
            score = "accuracy" if comparison.metric == "top1" else "AP50-95"
            scores = zip(names, row.accuracy.per_class.values(), strict=True)
            values |= {f"{comparison.split}/{score}/{name}": value for name, value in scores}
        values["agreement"] = row.agreement
    if row.speed is not None:
        values |= {"speedup": row.speed.value, "speedup_low": row.speed.low, "speedup_high": row.speed.high}
    if row.change is not None:
        values |= {"change": row.change.difference, "change_low": row.change.low, "change_high": row.change.high}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def tags(row: Row, comparison: Comparison) -> dict[str, str]:
    """Return what a candidate is, on what it was measured and what it scored: `model.*`, `bench.*`, `acc.*`."""
    variant, accuracy = row.entry.variant, row.accuracy
    found: dict[str, Any] = {
        **row.cost.tags(),
        "variant.kind": row.entry.kind,
        "variant.reference": comparison.reference,
        "model.size_mb": f"{row.cost.size_mb:.3f}",
        "bench.imgsz": max(row.entry.size),
        "bench.precision": row.entry.kind.rsplit("-", 1)[0] if variant else "fp32",
    }
    if variant is not None:
        found |= {"model.sha256": variant.sha256, "model.task": variant.task, "model.opset": variant.opset or ""}
        found |= operating_tags(variant.operating_point) | origin_tags(variant)
    if accuracy is not None:
        found |= {f"acc.{name}": f"{value:.6f}" for name, value in accuracy.values.items()}
        found |= {
            "acc.split": accuracy.split,
            "acc.n_images": accuracy.n_images,
            "acc.dataset": comparison.dataset.fingerprint,
            "acc.worst_class": "{} {:.4f}".format(*accuracy.worst_class),
            "acc.change_points": change_text(row),
            "acc.agreement": f"{row.agreement:.4f}",
            "acc.ultralytics_version": metadata.version("ultralytics"),
        }
        if len(accuracy.per_class) <= keys.MAX_CLASSES_AS_METRICS:
            found["acc.per_class"] = text(_rounded(accuracy.per_class))
    return {name: str(value)[:4000] for name, value in found.items() if str(value) != ""}


def _rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}


def _point(row: Row) -> Point:
    return Point(
        name=row.entry.name,
        latency_ms=row.cost.latency_p50_ms,
        accuracy=row.accuracy.headline[1] if row.accuracy else math.nan,
        size_mb=row.cost.size_mb,
        group=row.entry.runtime,
        error=row.error,
    )
