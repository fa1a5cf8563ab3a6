"""The report of a freeze ablation: the answer in three sentences, the table, and figures; all from one analysis."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from mlflow_yolo.figures import html as page
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.table import Table, markdown_table, text_table
from mlflow_yolo.studies.freeze.advice import draw_advice
from mlflow_yolo.studies.freeze.analysis import FreezeAnalysis, Row
from mlflow_yolo.studies.freeze.figures import Picture
from mlflow_yolo.studies.freeze.hint import Hint
from mlflow_yolo.tracking.links import Links

Cells = list[str]

_COSTS = ("parameters_trainable", "train_s", "seconds_per_epoch_mean", "peak_memory_mb", "overfit_gap", "epochs_to_90")


def columns(analysis: FreezeAnalysis) -> list[str]:
    """Return the headings of the table."""
    return [
        "freeze",
        "seeds",
        f"{analysis.split} {analysis.metric}",
        "95 % over seeds",
        "difference",
        "against 0",
        "95 % over images",
        "p seeds",
        "p images",
        "trainable",
        "s/epoch",
        "gap train-val",
    ]


def rows(analysis: FreezeAnalysis) -> list[Cells]:
    """Return the table's cells as text, one list per configuration."""
    return [_cells(row) for row in analysis.rows]


def _cells(row: Row) -> Cells:
    difference = row.seeds.difference if row.seeds else math.nan
    return [
        row.freeze.label,
        str(len(row.children)),
        _number(row.mean),
        _interval(row.low, row.high),
        _number(difference, sign=True) if row.seeds else "baseline",
        row.verdict.text if row.verdict else "",
        _interval(row.images.low, row.images.high, sign=True) if row.images else "",
        _p(row.verdict.p_seeds if row.verdict else None),
        _p(row.verdict.p_images if row.verdict else None),
        f"{row.average('parameters_trainable'):,.0f}",
        _number(row.average("seconds_per_epoch_mean"), digits=1),
        _number(row.average("overfit_gap"), sign=True),
    ]


def _number(value: float, *, digits: int = 3, sign: bool = False) -> str:
    return "" if math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(low: float, high: float, *, sign: bool = False) -> str:
    return "" if math.isnan(low) else f"{_number(low, sign=sign)} to {_number(high, sign=sign)}"


def _p(value: float | None) -> str:
    return "" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"


def answer(analysis: FreezeAnalysis) -> list[str]:
    """Return the answer in three sentences, each derived from the numbers of the table."""
    return [_verdict_sentence(analysis), _evidence_sentence(analysis), _cost_sentence(analysis)]


def _verdict_sentence(analysis: FreezeAnalysis) -> str:
    if len(analysis.rows) == 1:
        value = f"{analysis.split} {analysis.metric} {analysis.baseline.mean:.3f}"
        return f"Nothing was compared: only freezing nothing has results ({value})."
    better = [row for row in analysis.rows if row.verdict and row.verdict.outcome == "better"]
    worse = [row for row in analysis.rows if row.verdict and row.verdict.outcome == "worse"]
    open_ = [row for row in analysis.rows if row.verdict and row.verdict.outcome not in ("better", "worse")]
    if better:
        best = max(better, key=lambda row: row.mean)
        start = (
            f"Freezing {best.freeze.label} is better than freezing nothing, shown over {_sources(best)}: "
            f"{analysis.split} {analysis.metric} {best.mean:.3f} against {analysis.baseline.mean:.3f}."
        )
    elif open_:
        deepest = max(open_, key=lambda row: len(row.freeze.blocks))
        start = (
            f"No configuration is shown to be better than freezing nothing ({analysis.split} {analysis.metric} "
            f"{analysis.baseline.mean:.3f}); the deepest freeze without a shown loss is {deepest.freeze.label} "
            f"({deepest.mean:.3f})."
        )
    else:
        start = f"Freeze nothing: {analysis.split} {analysis.metric} {analysis.baseline.mean:.3f}."
    if not worse:
        return start
    listed = ", ".join(f"{row.freeze.label} ({row.mean:.3f})" for row in worse)
    return f"{start[:-1]}; worse: {listed}."


def _sources(row: Row) -> str:
    """Return what the evidence of a verdict comes from: `seeds`, `images` or both."""
    return " and ".join(row.verdict.sources) if row.verdict else ""


def _evidence_sentence(analysis: FreezeAnalysis) -> str:
    seeds = f"{analysis.n_seeds} seed{'s' if analysis.n_seeds != 1 else ''}"
    if len(analysis.rows) == 1:
        return f"The evidence: {seeds}, without anything to test against."
    tested = any(row.seeds and row.seeds.p is not None for row in analysis.rows)
    why_not = "that needs three" if analysis.n_seeds < 3 else "every seed differs by the same"
    tests = "a paired t test over seeds" if tested else f"no test over seeds ({why_not})"
    images = (
        f"a paired bootstrap over {analysis.n_images} {analysis.split} images ({analysis.n_resamples} resamples)"
        if analysis.n_resamples
        else "no bootstrap over images (no predictions to resample)"
    )
    corrected = ", each corrected by Holm over the configurations" if tested or analysis.n_resamples else ""
    return f"The evidence: {seeds}, {tests} and {images}{corrected}."


def _cost_sentence(analysis: FreezeAnalysis) -> str:
    """Return what an epoch took; less is only said where every seed of the frozen one was faster than any unfrozen."""
    timed = [row for row in analysis.rows if _seconds(row)]
    if not timed or timed[0] is not analysis.baseline:
        return "Epoch times are unknown."
    baseline, others = timed[0], timed[1:]
    if not others:
        return f"An epoch took {_range_text(baseline)}."
    fastest = min(others, key=lambda row: fmean(_seconds(row)))
    start = (
        f"An epoch took {_range_text(baseline)} unfrozen, {_range_text(fastest)} with {fastest.freeze.label} frozen "
        "(trainings that shared this machine)"
    )
    if max(_seconds(fastest)) >= min(_seconds(baseline)):
        return f"{start}: no saving shown."
    return f"{start}: {1 - fmean(_seconds(fastest)) / fmean(_seconds(baseline)):.0%} less."


def _seconds(row: Row) -> list[float]:
    """Return the mean epoch time of every seed."""
    name = "seconds_per_epoch_mean"
    return [float(child.result[name]) for child in row.children if name in child.result]


def _range_text(row: Row) -> str:
    """Return mean and range over seeds: `2.9 s (2.8 to 3.0)`, the mean alone for one seed."""
    seconds = _seconds(row)
    spread = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else ""
    return f"{fmean(seconds):.1f} s{spread}"


def csv(analysis: FreezeAnalysis) -> str:
    """Return the table with full precision, one line per configuration."""
    records = []
    for row in analysis.rows:
        record: dict[str, object] = {
            "freeze": row.freeze.label,
            "n_seeds": len(row.children),
            f"{analysis.split}/{analysis.metric}": row.mean,
            "low_seeds": row.low,
            "high_seeds": row.high,
        }
        if row.seeds and row.verdict:
            record |= {"difference": row.seeds.difference, "p_seeds_holm": row.verdict.p_seeds}
            record |= {"p_images_holm": row.verdict.p_images, "verdict": row.verdict.text}
        if row.images:
            record |= {"low_images": row.images.low, "high_images": row.images.high}
        record |= {name: row.average(name) for name in _COSTS}
        records.append(record)
    return str(pd.DataFrame(records).to_csv(index=False))


def metrics(analysis: FreezeAnalysis) -> dict[str, float]:
    """Return the parent's metrics: of each configuration the mean over seeds and the difference to the baseline."""
    values = {}
    for row in analysis.rows:
        name = row.freeze.word
        values[f"{analysis.split}/{analysis.metric}/freeze-{name}"] = row.mean
        if row.seeds:
            values[f"difference/freeze-{name}"] = row.seeds.difference
    return values


def note(analysis: FreezeAnalysis, links: Links | None = None, hint: Hint | None = None) -> str:
    """Return the markdown note of the parent run."""
    parts = [" ".join(answer(analysis)), markdown_table(*_narrow(analysis)), _caveat(analysis)]
    if hint:
        parts.append(" ".join(hint.sentences))
    if links:
        parts.insert(
            1, f"[Compare the trainings]({links.compare}) · [All charts]({links.charts}) · artifact `report.html`"
        )
    return "\n\n".join(parts)


def terminal_text(analysis: FreezeAnalysis, hint: Hint | None = None) -> str:
    """Return what the terminal shows: the table without its widest columns, the answer, and what was advised."""
    lines = ["", text_table(*_narrow(analysis)), "", *answer(analysis)]
    return "\n".join([*lines, "", hint.sentences[0], hint.sentences[-1]] if hint else lines)


def _narrow(analysis: FreezeAnalysis) -> tuple[list[str], list[Cells]]:
    """Return headings and rows of the columns that fit a terminal and MLflow's note."""
    kept = [0, 2, 3, 4, 6, 5, 10]
    headings = columns(analysis)
    return [headings[i] for i in kept], [[cells[i] for i in kept] for cells in rows(analysis)]


def html(
    analysis: FreezeAnalysis, pictures: Sequence[Picture], facts: Mapping[str, object], hint: Hint | None = None
) -> str:
    """Return the self-contained report."""
    sections = [
        page.Section(
            heading="Every configuration against freezing nothing",
            text=_caveat(analysis),
            table=Table(columns(analysis), rows(analysis)),
        ),
        *(
            page.Section(heading=picture.heading, pictures=[page.Picture(picture.file.read_bytes(), picture.text)])
            for picture in pictures
        ),
        *([_advised(hint)] if hint else []),
    ]
    return page.report("Freeze ablation", answer=answer(analysis), sections=sections, facts=facts)


def _advised(hint: Hint) -> page.Section:
    """Return what was advised before the trainings, and whether it held."""
    picture = page.Picture(png_bytes(draw_advice(hint.advice)), "Measured before anything was trained.")
    text = " ".join(hint.sentences)
    return page.Section(heading="What the freeze advisor said before", text=text, table=hint.table, pictures=[picture])


def _caveat(analysis: FreezeAnalysis) -> str:
    """Return what must be known to read the table."""
    own = (
        ""
        if analysis.task == "classify"
        else (
            " The metric is Ultralytics' own; interval and p over images come from COCO's formula on the same boxes, "
            "which differs from it by up to 0.0012 by formula and 1-2 points by clipping."
        )
    )
    return (
        f"Measured on the {analysis.split} split ({analysis.n_images} images) with each training's best weights on "
        f"val. Differences are against freeze 0; p values are corrected by Holm.{own}"
    )
