"""What MLflow's page of a version says: what it is, what it costs and scores beside its parent, and where from."""

import math
from collections.abc import Mapping
from typing import Any

from mlflow_yolo.figures.beside_parent import Measure, beside_parent
from mlflow_yolo.registry.markdown import fit, safe, spaced_table
from mlflow_yolo.registry.record import Measured, Record
from mlflow_yolo.registry.versions import page_of

PLOT = "beside_parent.png"
_MOST_CLASSES = 5


def plot_link(model_id: str) -> str:
    """Return the address, within MLflow's UI, of the plot that lies in a logged model."""
    return f"ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path=benchmark%2F{PLOT}"


def version_text(
    record: Record, tags: Mapping[str, str], *, name: str, parent_version: str = "", plot: str = ""
) -> str:
    """Return the description of a version: two sentences, a plot, a table, and where the numbers come from.

    Args:
        record: What was measured.
        tags: The version's tags.
        name: The registered model.
        parent_version: Version of its parent there, empty where that is not registered.
        plot: Address of the plot, empty for none.

    Returns:
        Markdown of at most `MOST_CHARACTERS`.
    """
    picture = f"![what it costs and scores beside its parent]({plot})" if plot else ""
    parts = [
        f"{_what(record, tags)} {_against(record, tags, name, parent_version)}",
        picture,
        _table(record, parent_version),
        " ".join(filter(None, [_point(tags), _source(record)])),
    ]
    return fit([part for part in parts if part])


def version_figure(record: Record) -> Any:
    """Return the plot of a version, a matplotlib figure: latency, score, size and memory beside its parent's."""
    mine, parent = record.variant, record.parent
    about = f"{mine.name}: {_ms(mine)}, {_score_text(mine)}, {mine.cost.size_mb:.1f} MB"
    measures = [
        Measure(
            "latency [ms]",
            mine.cost.latency_p50_ms,
            parent.cost.latency_p50_ms if parent else math.nan,
            mine.cost.latency_p95_ms,
            parent.cost.latency_p95_ms if parent else math.nan,
        ),
        Measure(_metric(mine), _headline(mine), _headline(parent), less_is_better=False),
        Measure("size [MB]", mine.cost.size_mb, parent.cost.size_mb if parent else math.nan),
        Measure("memory [MB]", mine.cost.peak_memory_mb, parent.cost.peak_memory_mb if parent else math.nan),
    ]
    reading = f"Bar of the latency: median; line: to the 95th percentile. {_source(record)}"
    return beside_parent(
        measures, model=mine.name, parent=parent.name if parent else None, about=about, reading=reading
    )


def _what(record: Record, tags: Mapping[str, str]) -> str:
    """Return what a version is: `int8-openvino of m.pt at 320 px, quantized with nncf on 200 images of train.`"""
    parts = [record.variant.kind]
    if checkpoint := tags.get("lineage.checkpoint"):
        parts.append(f"of {safe(checkpoint)}")
    if imgsz := tags.get("bench.imgsz"):
        parts.append(f"at {imgsz} px")
    made = []
    if "prune.ratio_reached" in tags:
        made.append(f"pruned ({tags.get('prune.method', '')}, {float(tags['prune.ratio_reached']):.0%})")
    if "kd.teacher" in tags:
        made.append(f"distilled from {safe(tags['kd.teacher'])}")
    if "quant.method" in tags:
        on = f" on {tags['quant.calib_n']} images of {tags.get('quant.calib_split')}" if "quant.calib_n" in tags else ""
        made.append(f"quantized ({tags['quant.method']}{on})")
    return f"{', '.join([' '.join(parts), *made])}."


def _against(record: Record, tags: Mapping[str, str], name: str, parent_version: str) -> str:
    mine, parent = record.variant, record.parent
    text = f"One image takes {_ms(mine)} (p95 {mine.cost.latency_p95_ms:.1f} ms); it is {mine.cost.size_mb:.1f} MB and"
    text += f" scores {_score_text(mine)}"
    if parent is None:
        return f"{text}."
    version = f" ([version {parent_version}]({page_of(name, parent_version)}))" if parent_version else ""
    speed, change = tags.get("parent.speedup"), tags.get("parent.change_points")
    parts = [f"{speed} as fast" if speed else "", f"{change} points of {_metric(mine)}" if change else ""]
    return f"{text}: against {safe(parent.name)}{version} that is {' and '.join(filter(None, parts)) or 'not known'}."


def _table(record: Record, parent_version: str) -> str:
    mine, parent = record.variant, record.parent
    columns = ["", mine.name]
    rows: list[list[object]] = [[name, value] for name, value in _numbers(mine).items()]
    if parent is not None:
        theirs = _numbers(parent)
        columns.append(f"parent {parent.name}" + (f" (version {parent_version})" if parent_version else ""))
        rows = [[name, value, theirs.get(str(name))] for name, value in rows]
        if not math.isnan(record.agreement):
            rows.append(["agreement with the parent", f"{record.agreement:.4f}", None])
    if record.parity is not None:
        text = f"score {record.parity['score_max']:.1e}, box {record.parity['box_max_px']:.1e} px"
        rows.append(["off its checkpoint by at most", text, *([None] if parent else [])])
    return spaced_table(columns, rows)


def _numbers(one: Measured) -> dict[str, str]:
    cost, scores = one.cost, one.scores
    found = {
        "latency p50 / p95 / p99 [ms]": f"{cost.latency_p50_ms:.1f} / {cost.latency_p95_ms:.1f} / "
        f"{cost.latency_p99_ms:.1f}",
        "pre- and postprocessing [ms]": f"{cost.preprocess_ms:.2f} + {cost.postprocess_ms:.2f}",
        "images per second": f"{cost.throughput.get(1, math.nan):.1f}",
        "size [MB]": f"{cost.size_mb:.1f}",
        "memory [MB]": f"{cost.peak_memory_mb:.0f}",
    }
    if scores is not None:
        found |= {name: f"{value:.4f}" for name, value in scores.values.items()}
        worst_first = sorted((value, name) for name, value in scores.per_class.items() if not math.isnan(value))
        for value, name in worst_first[:_MOST_CLASSES]:
            found[f"{'accuracy' if scores.metric == 'top1' else 'AP50-95'} of {name}"] = f"{value:.4f}"
    return found


def _point(tags: Mapping[str, str]) -> str:
    if "op.conf" not in tags:
        return ""
    chosen = f" ({tags.get('op.objective', '')} on {tags['op.split']})" if "op.split" in tags else ""
    own = ", with a confidence of their own for some classes" if "op.per_class" in tags else ""
    return f"It serves at conf {float(tags['op.conf']):.3g}, iou {float(tags.get('op.iou', 'nan')):.3g}{chosen}{own}."


def _source(record: Record) -> str:
    cost, scores = record.variant.cost, record.variant.scores
    text = f"{cost.n_runs} runs in {len(cost.rounds)} interleaved rounds on {record.about.get('machine', '')}"
    if scores is not None:
        text += f", {scores.n_images} images of {record.about.get('data', '')} {scores.split}"
    return f"Measured in {text}, {cost.date[:10]}."


def _metric(one: Measured) -> str:
    return one.scores.metric if one.scores else "score"


def _headline(one: Measured | None) -> float:
    return one.scores.headline if one and one.scores else math.nan


def _ms(one: Measured) -> str:
    return f"{one.cost.latency_p50_ms:.1f} ms"


def _score_text(one: Measured) -> str:
    if one.scores is None:
        return "no score"
    return f"{one.scores.metric} {one.scores.headline:.4f} on {one.scores.split}"
