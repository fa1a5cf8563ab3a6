"""Tables as markdown, as text for the terminal, and the rules that the HTML report shares with them."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from mlflow_yolo.exceptions import ShapeError

MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_SIGNS = rf"\-+{_MINUS}"
# Numbers with what stands around them in tables: intervals, errors, units of the thousand, `<.001`.
_NUMERIC_TEXT = re.compile(rf"[<>~]?[{_SIGNS}\[(]?[.\d](?:[\d.,eE%±()\[\]{_SIGNS}{MISSING} ]|to)*")
_LEADING_NUMBER = re.compile(rf"[<>~\[(]?\s*([{_SIGNS}]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        columns: Column names.
        rows: One sequence per row, as long as `columns`; numbers, text, or None for a missing value.

    Raises:
        ShapeError: A row has another length than `columns`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ShapeError(f"row {i} has {len(row)} cells for {len(self.columns)} columns. Pass one per column.")

    def texts(self) -> list[list[str]]:
        """Return every cell as text."""
        return [[cell_text(cell) for cell in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Return for each column whether it is right-aligned: at least half of its values, and one, are numbers."""
        return [_is_numeric([row[i] for row in self.rows]) for i in range(len(self.columns))]


def cell_text(value: object) -> str:
    """Return how a value is written: three decimals for numbers of ordinary size, an en dash for None and NaN."""
    if value is None:
        return MISSING
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            return MISSING
        return f"{number:.3f}" if number == 0 or 1e-3 <= abs(number) < 1e4 else f"{number:.3g}"
    return str(value)


def sort_key(value: object) -> str:
    """Return what the report's script sorts a cell by: a number in full, the number a text begins with, else empty."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return "" if math.isnan(float(value)) else repr(float(value))
    match = _LEADING_NUMBER.match(value.strip()) if isinstance(value, str) else None
    return match[1].replace(_MINUS, "-").replace(",", "") if match else ""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table, numbers right-aligned, text escaped so that it stays text.

    Args:
        columns: Column names.
        rows: Cells, as many per row as there are columns.

    Raises:
        ShapeError: A row has another length than `columns`.
    """
    table = Table(columns, rows)
    rule = ["---:" if right else ":---" for right in table.numeric()]
    lines = [[_markdown(name) for name in columns], rule, *([_markdown(cell) for cell in row] for row in table.texts())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table for the terminal: columns two spaces apart, numbers right-aligned, a rule below the names.

    Args:
        columns: Column names.
        rows: Cells, as many per row as there are columns.

    Returns:
        Lines without trailing spaces; wide characters count as two places.

    Raises:
        ShapeError: A row has another length than `columns`.
    """
    table = Table(columns, rows)
    lines = [[_one_line(cell) for cell in line] for line in (columns, *table.texts())]
    widths = [max(_places(line[i]) for line in lines) for i in range(len(columns))]
    right = table.numeric()
    padded = [
        "  ".join(_pad(cell, width, right=r) for cell, width, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([padded[0], "  ".join("─" * width for width in widths), *padded[1:]])


def _is_numeric(cells: Sequence[object]) -> bool:
    known = [cell for cell in cells if cell is not None and cell not in ("", MISSING)]
    return bool(known) and 2 * sum(_is_number(cell) for cell in known) >= len(known)


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return _NUMERIC_TEXT.fullmatch(cell.strip()) is not None
    return isinstance(cell, Real) and not isinstance(cell, bool)


def _one_line(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)


def _markdown(text: str) -> str:
    """Escape what would end the cell, start HTML, or start emphasis, code or a link."""
    safe = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", safe)


def _places(text: str) -> int:
    """Return the terminal columns that `text` takes."""
    widths = (0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return sum(widths)


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _places(text))
    return space + text if right else text + space
