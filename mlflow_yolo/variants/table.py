"""The comparison as a table, as sentences, and as figures: everything derived from the rows."""

import math

import pandas as pd

from mlflow_yolo.figures.table import Table, text_table
from mlflow_yolo.variant import Variant
from mlflow_yolo.variants.comparison import Comparison, Row, is_measured, is_worse_by_at_most

MAX_DROP_POINTS = 1.0
"""Loss of the headline value, in hundredths, up to which a faster variant is named as a choice."""


def frame(comparison: Comparison) -> pd.DataFrame:
    """Return one row per candidate with every number, in plain units, for `table.csv`."""
    return pd.DataFrame([_numbers(row, comparison) for row in comparison.rows])


def _numbers(row: Row, comparison: Comparison) -> dict[str, object]:
    cost, accuracy, variant = row.cost, row.accuracy, row.entry.variant
    worst = accuracy.worst_class if accuracy else ("", math.nan)
    return {
        "variant": row.entry.name,
        "kind": row.entry.kind,
        "imgsz": "x".join(str(side) for side in row.entry.size),
        "size_mb": cost.size_mb,
        "latency_p50_ms": cost.latency_p50_ms,
        "latency_p95_ms": cost.latency_p95_ms,
        "latency_p99_ms": cost.latency_p99_ms,
        "speedup": row.speed.value if row.speed else math.nan,
        "speedup_low": row.speed.low if row.speed else math.nan,
        "speedup_high": row.speed.high if row.speed else math.nan,
        "preprocess_ms": cost.preprocess_ms,
        "postprocess_ms": cost.postprocess_ms,
        **{f"throughput_{batch}": value for batch, value in cost.throughput.items()},
        "peak_memory_mb": cost.peak_memory_mb,
        **{f"{comparison.split}/{name}": value for name, value in (accuracy.values if accuracy else {}).items()},
        "change": row.change.difference if row.change else 0.0 if accuracy else math.nan,
        "change_low": row.change.low if row.change else math.nan,
        "change_high": row.change.high if row.change else math.nan,
        "worst_class": worst[0],
        "worst_class_score": worst[1],
        "agreement": row.agreement,
        "conf": accuracy.conf if accuracy else math.nan,
        "sha256": variant.sha256 if variant else "",
        "error": row.error,
    }


def shown(comparison: Comparison) -> Table:
    """Return the table that people read: the checkpoint first, the rest in the order given."""
    columns = [
        "variant",
        "MB",
        "p50 ms",
        "p95 ms",
        f"speed vs {comparison.reference}",
        f"{comparison.split} {comparison.metric}",
        "change in points",
        "worst class",
        "agreement",
    ]
    return Table(columns, [_cells(row) for row in comparison.rows])


def _cells(row: Row) -> list[object]:
    if not is_measured(row):
        return [
            row.entry.name,
            f"{row.cost.size_mb:.1f}",
            None,
            None,
            f"failed: {row.error[:60]}",
            None,
            None,
            None,
            None,
        ]
    assert row.accuracy is not None
    name, score = row.accuracy.worst_class
    return [
        row.entry.name,
        f"{row.cost.size_mb:.1f}",
        f"{row.cost.latency_p50_ms:.1f}",
        f"{row.cost.latency_p95_ms:.1f}",
        speed_text(row),
        f"{row.accuracy.headline[1]:.4f}",
        change_text(row),
        f"{name} {score:.3f}",
        f"{row.agreement:.3f}",
    ]


def speed_text(row: Row) -> str:
    """Return `1.72x [1.65, 1.80]`."""
    return f"{row.speed.value:.2f}x [{row.speed.low:.2f}, {row.speed.high:.2f}]" if row.speed else ""


def change_text(row: Row) -> str:
    """Return the change of the headline value in hundredths: `-0.31 [-0.80, +0.15]`; empty for the reference."""
    if row.change is None:
        return ""
    return f"{100 * row.change.difference:+.2f} [{100 * row.change.low:+.2f}, {100 * row.change.high:+.2f}]"


def terminal_text(comparison: Comparison) -> str:
    """Return the result as lines for a terminal."""
    table = shown(comparison)
    return "\n\n".join(["\n".join(answer(comparison)), text_table(table.columns, table.rows)])


def answer(comparison: Comparison) -> list[str]:
    """Return the result in sentences."""
    rows = [row for row in comparison.rows if is_measured(row)]
    failed = [row for row in comparison.rows if not is_measured(row)]
    lines = [_choice(comparison, rows)]
    slower = [row.entry.name for row in rows if row.speed and row.speed.high < 1 and row.entry.variant]
    if slower:
        lines.append(f"Slower than {comparison.reference} here: {', '.join(slower)}.")
    lines += [line for row in rows if row.entry.variant for line in loss_warning(row.entry.name, row.entry.variant)]
    lines += [f"{row.entry.name} could not be measured: {row.error.rstrip('.')}." for row in failed]
    cost = rows[0].cost if rows else comparison.rows[0].cost
    n_images = rows[0].accuracy.n_images if rows and rows[0].accuracy else 0
    lines.append(
        f"Measured on {machine(comparison)}: {cost.n_runs} runs each in interleaved rounds; {comparison.metric} on "
        f"{comparison.dataset.name} {comparison.split} ({n_images} images)."
    )
    return lines


def loss_warning(name: str, variant: Variant) -> list[str]:
    """Return a sentence on an int8 variant that loses more than was allowed, none for any other."""
    control = variant.sources.get("accuracy_control")
    if not control or control.get("holds", True):
        return []
    return [f"{name}: nothing kept the loss on val within {100 * control['max_drop']:g} points; the best try is kept."]


def machine(comparison: Comparison) -> str:
    """Return on what costs were measured: `AMD EPYC, avx512_vnni, 1 thread`."""
    hardware = comparison.rows[0].cost.hardware
    threads = f"{hardware.threads} thread{'s' if hardware.threads > 1 else ''}"
    return f"{hardware.cpu_model}, {hardware.isa}, {threads}"


def best_row(comparison: Comparison, points: float = MAX_DROP_POINTS) -> Row | None:
    """Return the variant with the highest speed whose headline value is at most `points` below the reference's.

    Only variants that are faster at the lower end of their interval count; None where there is none.
    """
    rows = [row for row in comparison.rows if row.entry.variant and row.speed and row.speed.low > 1]
    allowed = [row for row in rows if is_measured(row) and is_worse_by_at_most(row, points)]
    return max(allowed, key=lambda row: row.speed.value if row.speed else 0.0, default=None)


def _choice(comparison: Comparison, rows: list[Row]) -> str:
    if rows and not any(row.entry.variant for row in comparison.rows):
        return _result(comparison, rows[-1])
    best = best_row(comparison)
    if best is None:
        return (
            f"No variant is faster than {comparison.reference} with at most {MAX_DROP_POINTS:g} point of "
            f"{comparison.metric} lost ({len(rows)} measured)."
        )
    return (
        f"Fastest with at most {MAX_DROP_POINTS:g} point of {comparison.metric} lost: {best.entry.name}, "
        f"{speed_text(best)} as fast as {comparison.reference}, {change_text(best)} points, "
        f"{best.cost.latency_p50_ms:.1f} ms, {best.cost.size_mb:.1f} MB."
    )


def _result(comparison: Comparison, row: Row) -> str:
    """Return what came of pruning or distilling, whose rows are checkpoints only, the result last."""
    cost = f"{row.cost.latency_p50_ms:.1f} ms, {row.cost.size_mb:.1f} MB"
    if row.change is None:
        return f"{row.entry.name}: {cost}."
    return (
        f"{row.entry.name}: {speed_text(row)} as fast as {comparison.reference}, {change_text(row)} points of "
        f"{comparison.metric}, {cost}."
    )
