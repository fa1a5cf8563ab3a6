"""What a detector got wrong on a split, and where it looked."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlflow_yolo.attribution.cam import find_method
from mlflow_yolo.classification.categories import Categories
from mlflow_yolo.classification.recommendations import Evidence, recommendations
from mlflow_yolo.detection.worst_predictions import Case, confused_cases, rank_cases
from mlflow_yolo.explanation.attention import Attention, find_attention
from mlflow_yolo.explanation.batches import Mapper
from mlflow_yolo.explanation.detection_errors import DetectionErrors, error_figures, error_tables, find_errors
from mlflow_yolo.explanation.detection_page import answer_of, detection_page
from mlflow_yolo.explanation.examples import draw_cases
from mlflow_yolo.explanation.findings import Findings, Settings
from mlflow_yolo.explanation.gallery import Chosen, hang
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.perturbation import PEER
from mlflow_yolo.explanation.split import DetectedSplit
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.stages import Stages

DEFAULT_METHOD = "layercam"
_MOST_ROWS = 40
"""Of the table of maps on the terminal; with more classes only the rows of all of them are shown there."""


def explain_detector(
    split: DetectedSplit,
    model: ExplainedModel,
    *,
    peer_block: int,
    settings: Settings,
    groups: Categories | None = None,
    facts: Mapping[str, object],
    stages: Stages,
) -> Findings:
    """Return everything that is found about a detector on a split.

    Args:
        split: What it detected.
        model: The model.
        peer_block: The block that the usual recipe of Grad-CAM takes, to be compared with.
        settings: How much is looked at.
        groups: Categories of the classes.
        facts: What stands at the top of the report.
        stages: Told about progress.
    """
    method = find_method(settings.method or DEFAULT_METHOD)
    mapper = Mapper(model, split.input, method, settings.blocks, stages=stages)
    errors = find_errors(split.samples, model.names, split=split.name, conf=settings.conf, groups=groups)
    chosen = choose_cases(split, errors, settings)
    gallery = hang(chosen, draw_cases(split, mapper, chosen.cases(), errors.names))
    attention = find_attention(split, mapper, errors, settings, peer_block=peer_block)
    stages.begin("report", 1)
    figures = {name: png_bytes(figure) for name, figure in error_figures(errors, split.samples).items()}
    answer, advice = answer_of(errors, attention.faithfulness), recommendations(evidence_of(errors, attention))
    made = {**facts, "maps": " ".join([method.name, *(f"at block {block}" for block in settings.blocks)])}
    faithful = attention.faithfulness
    shown = faithful if len(faithful) <= _MOST_ROWS else faithful[faithful["class"] == "all"]
    return Findings(
        metrics=metrics_of(errors, attention),
        tables={**error_tables(errors), **_attention_tables(attention)},
        figures=figures,
        examples=gallery.files(errors.names),
        page=detection_page(errors, attention, gallery, figures, answer=answer, advice=advice, facts=made),
        answer=answer,
        recommendations=advice,
        shown={
            "Maps on their objects (energy inside against a uniform map; the ceiling is what a perfect map reaches)": (
                shown[_SHOWN]
            ),
            "Deletion (small is good) and insertion (large is good)": attention.deletion_insertion,
        },
    )


_SHOWN = [
    *("class", "maps", "n", "energy", "coverage", "energy_ratio", "energy_ceiling", "pointing", "attention_iou_lift"),
]


def choose_cases(split: DetectedSplit, errors: DetectionErrors, settings: Settings) -> Chosen[Case]:
    """Return the worst and best cases of every class, and the surest ones of the most confused pairs."""
    n_classes, conf = len(errors.names), errors.conf
    ranked = rank_cases(split.samples, n_classes=n_classes, conf=conf, per_class=settings.per_class)
    confused = confused_cases(split.samples, n_classes=n_classes, conf=conf, per_pair=settings.pair_examples)
    return Chosen(ranked, dict(list(confused.items())[: settings.pairs]))


def _attention_tables(attention: Attention) -> dict[str, pd.DataFrame]:
    """Return the tables that are kept, by file name."""
    return {
        "faithfulness": attention.faithfulness,
        "deletion_insertion": attention.deletion_insertion,
        "deletion_insertion_detections": attention.perturbed,
        "bias": attention.bias,
        "bias_confused_pairs": attention.pairs,
        "bias_co_occurrence": attention.co_occurrence,
    }


def evidence_of(errors: DetectionErrors, attention: Attention) -> Evidence:
    """Return what recommendations are made from."""
    bias, others = attention.bias, attention.co_occurrence
    ends = {"lift_low": "low", "lift_high": "high"}
    right = bias[bias["class_id"].notna() & (bias["size"] == "all") & (bias["outcome"] == "TP")]
    return Evidence(
        split=errors.split,
        what="objects",
        pairs=errors.pairs,
        classes=errors.classes.rename(columns={"class": "name", "n_objects": "n"}),
        score="recall",
        confidence=errors.confidence,
        categories=errors.categories,
        delta_ap=errors.types.delta_ap,
        ap50=errors.types.ap,
        bias=right.rename(columns={"class": "name", **ends}),
        co_occurrence=others.assign(name=others["class"] + " on " + others["other"]).rename(columns=ends),
    )


def metrics_of(errors: DetectionErrors, attention: Attention) -> dict[str, float]:
    """Return the numbers of the whole split, by metric key; what could not be measured is left out."""
    values = {
        "operating_conf": errors.conf,
        "d_ece": errors.calibration.d_ece,
        "la_ece": errors.calibration.la_ece,
        "high_confidence_errors": float(len(errors.confident)),
        **{f"delta_ap50/{name}": value for name, value in errors.types.delta_ap.items()},
    }
    faithful = attention.faithfulness
    for row in faithful[faithful["class"] == "all"].to_dict("records"):
        values |= {f"{name}/{row['maps']}": row[name] for name in ("energy_ratio", "pointing", "attention_iou_lift")}
    for row in attention.deletion_insertion.to_dict("records"):
        # One key whatever the model's block; nor may it be that of Grad-CAM where the maps themselves are Grad-CAM.
        kind = "usual_gradcam" if row["map"].startswith(f"{PEER}, ") else row["map"]
        values |= {f"{name}/{kind}": row[name] for name in ("deletion", "insertion")}
    return {f"explain/{name}": float(value) for name, value in values.items() if np.isfinite(value)}
