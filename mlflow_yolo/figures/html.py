"""The report: one self-contained HTML page that works in MLflow's sandboxed frame, by mail and on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from mlflow_yolo.figures.encode import data_uri
from mlflow_yolo.figures.table import Table as Table
from mlflow_yolo.figures.table import sort_key


@dataclass(frozen=True)
class Picture:
    """A figure of the report with a caption.

    Attributes:
        image: A matplotlib figure, or a PNG file's bytes.
        caption: Sentence below it, also its alternative text; may be empty.
    """

    image: Figure | bytes
    caption: str


@dataclass(frozen=True)
class Details:
    """A block that is closed until the reader opens it.

    Attributes:
        summary: The line that is always seen.
        text: Preformatted text inside.
        table: A table inside, below the text.
    """

    summary: str
    text: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        heading: Its title.
        text: Paragraphs, separated by empty lines.
        table: A table that can be sorted by a click on a column's name.
        pictures: Figures below it.
        details: A closed block at the end.
    """

    heading: str
    text: str = ""
    table: Table | None = None
    pictures: Sequence[Picture] = field(default=())
    details: Details | None = None


def report(
    title: str,
    *,
    answer: Sequence[str],
    sections: Sequence[Section],
    facts: Mapping[str, object] | None = None,
) -> str:
    """Return the page as text: HTML with inline style and script, images as data URIs, no request to anywhere.

    Args:
        title: The page's title.
        answer: The result in a few sentences, set first and large; the first one carries the weight.
        sections: What follows, in order; a table of contents when there are more than two.
        facts: Names and values below the title, for example the data set's fingerprint and the model.

    Returns:
        An HTML document. Everything passed in is escaped.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("templates/report.html").read_text("utf-8"))
    return template.render(
        title=title,
        answer=list(answer),
        facts=dict(facts or {}),
        sections=[_section(section) for section in sections],
    )


def _section(section: Section) -> dict[str, Any]:
    """Return what the template needs of a section."""
    details = section.details
    return {
        "heading": section.heading,
        "paragraphs": _paragraphs(section.text),
        "table": _table(section.table),
        "pictures": [_picture(picture, section.heading) for picture in section.pictures],
        "details": details and {"summary": details.summary, "text": details.text, "table": _table(details.table)},
    }


def _picture(picture: Picture, heading: str) -> dict[str, str]:
    """Return address, caption and alternative text; without a caption the section's heading stands in."""
    return {"uri": data_uri(picture.image), "caption": picture.caption, "alt": picture.caption or heading}


def _paragraphs(text: str) -> list[str]:
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def _table(table: Table | None) -> dict[str, Any] | None:
    """Return columns with their alignment, and rows of (text, sort key)."""
    if table is None:
        return None
    keys = [[sort_key(cell) for cell in row] for row in table.rows]
    return {
        "columns": list(zip(table.columns, table.numeric(), strict=True)),
        "rows": [list(zip(texts, row, strict=True)) for texts, row in zip(table.texts(), keys, strict=True)],
    }
