"""Parts of the report that detectors and classifiers share."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mlflow_yolo.figures.html import Picture, Section
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.figures.table import Table

NOTHING_SHOWN = "The evidence of this split supports no recommendation."


def figure_sections(figures: Mapping[str, Figure], captions: Mapping[str, tuple[str, str]]) -> list[Section]:
    """Return a section for each figure that has a heading and a text, in the order of the captions."""
    return [
        Section(heading, text, pictures=[Picture(figures[name], "")])
        for name, (heading, text) in captions.items()
        if name in figures
    ]


def table_of(table: pd.DataFrame, columns: Sequence[str] | None = None, *, most: int = 200) -> Table | None:
    """Return the first rows of a table for the page, of some columns or all; None where there are no rows."""
    if table.empty:
        return None
    shown = table.head(most) if columns is None else table.head(most)[list(columns)]
    rows = [[None if pd.isna(value) else value for value in row] for row in shown.itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in shown.columns], rows)


def recommendation_section(sentences: Sequence[str]) -> Section:
    """Return what follows from the evidence, a paragraph each; that nothing does is said too."""
    return Section("Recommendations", "\n\n".join(sentences) or NOTHING_SHOWN)
