"""Findings as files of a run."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mlflow_yolo.explanation.findings import FOLDER, Findings
from mlflow_yolo.explanation.page import NOTHING_SHOWN
from mlflow_yolo.figures.example import Example, grid
from mlflow_yolo.figures.table import text_table
from mlflow_yolo.tracking.run import TrackedRun

_QUALITY = 88


def write_findings(findings: Findings, directory: Path) -> Path:
    """Write findings below `directory/explain` and return that folder.

    Returns:
        With `report.html`, `summary.txt`, `recommendations.txt`, a CSV for every table, a PNG for every figure, and
        JPEGs of the examples in `worst/` and `pairs/`.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in findings.tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    for name, png in findings.figures.items():
        (folder / f"{name}.png").write_bytes(png)
    for path, examples in findings.examples.items():
        target = folder / f"{path}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(_jpeg(examples))
    (folder / "summary.txt").write_text(summary(findings), encoding="utf-8")
    (folder / "recommendations.txt").write_text((_advice(findings) or NOTHING_SHOWN) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(findings.page, encoding="utf-8")
    return folder


def log_findings(run: TrackedRun, findings: Findings, folder: Path) -> None:
    """Log findings that were written to `folder`, and their numbers."""
    run.log_metrics(findings.metrics)
    run.log_file(folder)


def summary(findings: Findings) -> str:
    """Return the result as text for a terminal."""
    parts = ["\n".join(findings.answer)]
    for heading, table in findings.shown.items():
        if len(table):
            names = [str(name).replace("_", " ") for name in table.columns]
            parts.append(f"{heading}:\n{text_table(names, table.to_numpy().tolist())}")
    return _paragraphs([*parts, _advice(findings)]) + "\n"


def note(findings: Findings) -> str:
    """Return the run's note: the answer, the recommendations and where the report is."""
    return _paragraphs([*findings.answer, _advice(findings), f"Report: `{FOLDER}/report.html`"])


def _advice(findings: Findings) -> str:
    return "\n".join(f"- {sentence}" for sentence in findings.recommendations)


def _paragraphs(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _jpeg(examples: Sequence[Example]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grid(examples)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
