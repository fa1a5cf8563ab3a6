"""The freeze advice beside what a freeze ablation measured: what its report says of it."""

from dataclasses import dataclass
from pathlib import Path

from mlflow_yolo.figures.table import Table
from mlflow_yolo.studies.freeze.advice import AdviceCorrelation, correlation, read_advice
from mlflow_yolo.studies.freeze.analysis import FreezeAnalysis
from mlflow_yolo.training.freeze_advice import FreezeAdvice


@dataclass(frozen=True)
class Hint:
    """An advice, and whether it ordered the depths as the trainings did.

    Attributes:
        advice: What was advised before the trainings.
        correlation: What became of it.
    """

    advice: FreezeAdvice
    correlation: AdviceCorrelation

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was advised, why, and last whether it held."""
        advice = self.advice
        against = f" against {advice.source}" if advice.source else ""
        what = f"{advice.depth} block{'s' if advice.depth > 1 else ''}" if advice.depth else "nothing"
        first = (
            f"The freeze advisor, a hint from {advice.n_images} images of {advice.data}{against} before the trainings, "
            f"was to freeze {what}."
        )
        return (first, *advice.reasons, self.correlation.text)

    @property
    def table(self) -> Table:
        """One row a block that has weights."""
        headings = ["block", "part", "need", "relative gradient", "GSNR", "batch norm drift"]
        rows = [
            [row.name, row.part, *map(_number, (row.need, row.relative_gradient, row.gsnr, row.bn_drift))]
            for row in self.advice.blocks
            if row.relative_gradient is not None
        ]
        return Table(headings, rows)


def read_hint(directory: Path, analysis: FreezeAnalysis) -> Hint | None:
    """Return the advice of a study against its analysis, or None where it has none.

    Args:
        directory: The study's folder.
        analysis: The comparison; configurations that are no depth (`6-`) are left out.
    """
    advice = read_advice(directory)
    if advice is None:
        return None
    measured = {row.freeze.depth: row.mean for row in analysis.rows if row.freeze.depth is not None}
    return Hint(advice, correlation(advice, measured, metric=f"{analysis.split} {analysis.metric}"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
