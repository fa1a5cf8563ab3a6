"""Parts of the report that detectors and classifiers share."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo.explanation.gallery import Gallery, Pair
from mlflow_yolo.figures.explain_report import PairPage
from mlflow_yolo.figures.html import Picture, Section
from mlflow_yolo.figures.table import Table

NOTHING_SHOWN = "The evidence of this split supports no recommendation."


def figure_sections(figures: Mapping[str, bytes], captions: Mapping[str, tuple[str, str]]) -> list[Section]:
    """Return a section for each figure, a PNG, that has a heading and a text, in the order of the captions."""
    return [
        Section(heading, text, pictures=[Picture(figures[name], "")])
        for name, (heading, text) in captions.items()
        if name in figures
    ]


def table_section(heading: str, text: str, table: pd.DataFrame, *, most: int = 200) -> Section:
    """Return a section with the first rows of a table; one without rows says so."""
    if table.empty:
        return Section(heading, f"{text}\n\nNone on this split.")
    more = f"\n\nThe first {most} of {len(table)} rows; the CSV has all." if len(table) > most else ""
    rows = [[None if pd.isna(value) else value for value in row] for row in table.head(most).itertuples(index=False)]
    return Section(heading, text + more, Table([str(name).replace("_", " ") for name in table.columns], rows))


def recommendation_section(sentences: Sequence[str]) -> Section:
    """Return what follows from the evidence, a paragraph each; that nothing does is said too."""
    return Section("Recommendations", "\n\n".join(sentences) or NOTHING_SHOWN)


def pair_pages(
    gallery: Gallery, pairs: pd.DataFrame, matrix: npt.NDArray[np.int64], names: Sequence[str]
) -> list[PairPage]:
    """Return what the report shows of confused pairs.

    Args:
        gallery: Their examples.
        pairs: Rates and intervals, see `classification.confused_pairs`; rare pairs are not in it.
        matrix: Counts [true, predicted].
        names: Class names.
    """
    return [
        PairPage(names[true], names[predicted], _pair_facts(pairs, matrix, (true, predicted)), examples)
        for (true, predicted), examples in gallery.pairs.items()
    ]


def _pair_facts(pairs: pd.DataFrame, matrix: npt.NDArray[np.int64], pair: Pair) -> dict[str, object]:
    found = pairs[(pairs["true_id"] == pair[0]) & (pairs["predicted_id"] == pair[1])]
    facts: dict[str, object] = {"confused": int(matrix[pair])}
    for row in found.to_dict("records"):
        facts |= {"rate": row["rate"], "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}"}
    return facts
