"""Markdown that fits into a description of MLflow's registry, and that no name can break."""

import html
import re
from collections.abc import Sequence

from mlflow_yolo.figures.table import cell_text, markdown_table

MOST_CHARACTERS = 5000
"""What MLflow's database holds of a description."""

_LONGEST_NAME = 200


def safe(text: str) -> str:
    """Return text that markdown and HTML leave as it is; names come from users."""
    kept = "".join(character for character in text if character.isprintable())
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(kept[:_LONGEST_NAME], quote=False))


def fit(parts: Sequence[str]) -> str:
    """Return as many parts, the first ones first, as a description holds."""
    text = ""
    for part in parts:
        longer = f"{text}\n\n{part}" if text else part
        if len(longer) <= MOST_CHARACTERS:
            text = longer
    return text or parts[0][:MOST_CHARACTERS]


def spaced_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table with room between its columns: MLflow's page draws none."""
    space = 2 * "\N{NO-BREAK SPACE}"
    spaced = [[row[0], *(space + cell_text(cell) for cell in row[1:])] for row in rows]
    return markdown_table([columns[0], *(space + column for column in columns[1:])], spaced)
