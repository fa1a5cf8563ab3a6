"""What an explanation has found, before any of it is logged: numbers, tables, figures, examples and one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mlflow_yolo.figures.example import Example

FOLDER = "explain"
"""Where the artifacts of a run lie."""


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that one explanation has found.

    Attributes:
        metrics: Numbers of the whole split by key.
        tables: By file name without ending.
        figures: PNGs by file name without ending.
        examples: By path without ending, the examples on one picture: `worst/<class>`, `pairs/<true>__<predicted>`.
        page: The report.
        answer: The result in a few sentences.
        recommendations: What follows from the evidence; empty where nothing does.
        shown: Tables for the terminal by heading.
    """

    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, bytes]
    examples: Mapping[str, Sequence[Example]]
    page: str
    answer: Sequence[str]
    recommendations: Sequence[str]
    shown: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How much is looked at.

    Attributes:
        method: How maps are made, None for the task's default.
        block: Where, None for the default of each detection level.
        conf: Operating point, None for the confidence with the best mean F1 on the split.
        per_class: Worst and best examples of a class.
        pairs: Confused pairs with examples of their own.
        pair_examples: Examples of each.
        instances: Objects of a class and outcome whose maps are measured.
        perturbed: Detections for deletion and insertion; each costs some 80 forward passes.
        seed: Of everything that is drawn by lot.
    """

    method: str | None = None
    block: int | None = None
    conf: float | None = None
    per_class: int = 3
    pairs: int = 5
    pair_examples: int = 3
    instances: int = 30
    perturbed: int = 32
    seed: int = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks asked for."""
        return () if self.block is None else (self.block,)
