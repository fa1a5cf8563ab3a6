"""The freeze advisor of a study: asked once before the trainings, and held against what they showed afterwards."""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from mlflow_yolo.datasets.dataset import Dataset, load_dataset
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.freeze_advice import BlockEvidence, freeze_advice
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.models.checkpoint import Model
from mlflow_yolo.statistics.rank_correlation import RankCorrelation, rank_correlation
from mlflow_yolo.studies.freeze.advice_process import compute_advice, kept_advice, read_advice
from mlflow_yolo.tracking.run import TrackedRun
from mlflow_yolo.training.block_need import little_need
from mlflow_yolo.training.freeze_advice import FreezeAdvice
from mlflow_yolo.training.plan import Plan

__all__ = ["AdviceCorrelation", "check_source", "correlation", "draw_advice", "log_advice", "read_advice", "table"]

FIGURE = "freeze_advice"
_SHOWN = 0.05


@dataclass(frozen=True)
class AdviceCorrelation:
    """Whether the advice ordered the depths as the trainings did.

    Attributes:
        advice: Rank correlation of the advised order with the measured values.
        fewer: That of the plain order in which fewer frozen blocks are better: what an advice must beat.
        text: Both in a sentence.
    """

    advice: RankCorrelation
    fewer: RankCorrelation
    text: str

    @property
    def shown(self) -> bool:
        """Whether the advice is more than a hint here: beyond chance, and better than the plain order."""
        rho, p, plain = self.advice.rho, self.advice.p, self.fewer.rho
        return rho is not None and p is not None and p < _SHOWN and rho > 0 and (plain is None or rho > plain)

    @property
    def metrics(self) -> dict[str, float]:
        """What the parent run logs."""
        values = {"advice/rank_correlation": self.advice.rho, "advice/p": self.advice.p}
        values["advice/rank_correlation_fewer_frozen"] = self.fewer.rho
        return {name: value for name, value in values.items() if value is not None}


def check_source(source: str, model: Model) -> Dataset:
    """Return the data that a model was trained on.

    Raises:
        InputError: They cannot be read, or hold other classes than the model.
    """
    dataset = load_dataset(source, task=model.task)
    if sorted(dataset.names) != sorted(model.names):
        raise ArgumentError(
            f"source={source} has the classes {', '.join(dataset.names[:5])}, the model {', '.join(model.names[:5])}. "
            f"Use the data that the model was trained on, or leave --source out."
        )
    return dataset


def log_advice(
    parent: TrackedRun, directory: Path, plan: Plan, *, source: str | None = None, threads: int = 1
) -> FreezeAdvice | None:
    """Return the advice for a study and log it into its parent run; None, and a note, where there is none.

    It is computed once and kept as `advice.json` in the study's folder. Nothing that goes wrong here stops a study.

    Args:
        parent: The study's open parent run.
        directory: The study's folder.
        plan: Any plan of the study: its model, data, sizes and loss arguments count.
        source: What the model was trained on, as the user named it; see `check_source`.
        threads: Threads of the process.
    """
    if not plan.model.endswith(".pt"):
        _note(f"model={plan.model} is untrained, so that nothing in it is worth freezing")
        return None
    try:
        advice = kept_advice(directory, plan, source) or compute_advice(directory, plan, source, threads=threads)
        _log(parent, directory, advice)
    except Exception as error:  # a hint is not worth a study
        _note(str(error) if isinstance(error, MlflowYoloError) else f"{type(error).__name__}: {error}")
        return None
    return advice


def correlation(advice: FreezeAdvice, measured: Mapping[int, float], *, metric: str = "metric") -> AdviceCorrelation:
    """Return whether the advice ordered the depths as they were measured.

    Args:
        advice: The advice.
        measured: The value of each depth that was trained, more is better; NaN and depths beyond the head are left out.
        metric: What it is, for the sentence: `test mAP50-95`.
    """
    scores = advice.scores
    depths = [depth for depth, value in measured.items() if 0 <= depth < len(scores) and math.isfinite(value)]
    values = [measured[depth] for depth in depths]
    ranked = rank_correlation([scores[depth] for depth in depths], values)
    fewer = rank_correlation([-float(depth) for depth in depths], values)
    found = AdviceCorrelation(ranked, fewer, "")
    return AdviceCorrelation(ranked, fewer, _sentence(found, metric))


def _sentence(found: AdviceCorrelation, metric: str) -> str:
    ranked, fewer = found.advice, found.fewer
    if ranked.rho is None or ranked.p is None:
        why = "fewer than three depths" if ranked.n < 3 else "depths that are all advised or measured alike"
        return f"Whether the advice holds cannot be said from {why}: it stays a hint."
    orders = "all orders" if ranked.exact else "20000 drawn orders"
    p = "p < 0.001" if ranked.p < 0.001 else f"p = {ranked.p:.3f}"
    start = (
        f"Over {ranked.n} depths the advice and the measured {metric} have the rank correlation {_signed(ranked.rho)} "
        f"(Spearman, {p} one-sided, over {orders})"
    )
    plain = "" if fewer.rho is None else f"; that fewer frozen blocks are better has {_signed(fewer.rho)}"
    return f"{start}{plain}. {'The advice held in this study.' if found.shown else 'It stays a hint.'}"


def _signed(rho: float) -> str:
    return f"{round(rho, 2) + 0.0:+.2f}"  # no -0.00


def table(advice: FreezeAdvice) -> str:
    """Return the advice as CSV, one line a block; `score` is what speaks for freezing up to and with it."""
    records = [asdict(block) for block in advice.blocks]
    for record, score in zip(records, advice.scores[1:], strict=False):
        record["score"] = score
    return str(pd.DataFrame(records).to_csv(index=False))


def draw_advice(advice: FreezeAdvice) -> Figure:
    """Return the figure of the advice."""
    rows = [
        BlockEvidence(
            block.index,
            block.name,
            *(
                math.nan if value is None else value
                for value in (
                    block.need,
                    block.relative_gradient,
                    block.source_gradient,
                    block.bn_drift,
                    block.source_drift,
                )
            ),
        )
        for block in advice.blocks
    ]
    little = little_need(advice.blocks)
    return freeze_advice(rows, depth=advice.depth, little=little, data=advice.data, source=advice.source)


def _log(parent: TrackedRun, directory: Path, advice: FreezeAdvice) -> None:
    """Log depth, table and figure under fixed names: again after an interruption is the same as once."""
    parent.log_params({"advice/freeze": advice.depth})
    parent.log_text(table(advice), "advice.csv")
    (directory / "figures").mkdir(exist_ok=True)
    file = directory / "figures" / f"{FIGURE}.png"
    file.write_bytes(png_bytes(draw_advice(advice)))
    parent.log_file(file, "figures")


def _note(reason: str) -> None:
    print(f"note: no freeze advice: {reason.rstrip('.')}. The study goes on without it.", file=sys.stderr)
