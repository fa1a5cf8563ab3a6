"""What a detector got wrong on a split, and where it looked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_yolo import keys
from mlflow_yolo.attribution.bias import ALL
from mlflow_yolo.attribution.cam import Method, find_method
from mlflow_yolo.attribution.maps import TargetMap
from mlflow_yolo.classification.categories import Categories
from mlflow_yolo.classification.recommendations import Evidence, recommendations
from mlflow_yolo.detection.worst_predictions import Case, ClassCases, confused_cases, rank_cases
from mlflow_yolo.explanation.attention import (
    AttentionTables,
    attention_tables,
    measure_classes,
    measure_instances,
    measure_pairs,
)
from mlflow_yolo.explanation.detection_errors import DetectionErrors, error_figures, error_tables, find_errors
from mlflow_yolo.explanation.detection_page import (
    CAPTIONS,
    answer_of,
    attention_sections,
    class_page,
    confident_section,
    pair_page,
)
from mlflow_yolo.explanation.examples import draw_cases
from mlflow_yolo.explanation.findings import Findings, Settings
from mlflow_yolo.explanation.instances import draw_instances
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.page import figure_sections, recommendation_section
from mlflow_yolo.explanation.perturbation import draw_detections, perturb, perturbation_table
from mlflow_yolo.explanation.split import DetectedSplit
from mlflow_yolo.explanation.stages import Stages
from mlflow_yolo.figures.example import Example
from mlflow_yolo.figures.explain_report import explain_report

DEFAULT_METHOD = "layercam"


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the model looked.

    Attributes:
        tables: Attention on objects.
        perturbation: Means of deletion and insertion by kind of map.
        perturbed: The single values behind them.
    """

    tables: AttentionTables
    perturbation: pd.DataFrame
    perturbed: pd.DataFrame


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
    names, method = model.names, find_method(settings.method or DEFAULT_METHOD)
    errors = find_errors(split.samples, names, split=split.name, conf=settings.conf, groups=groups)
    ranked = rank_cases(split.samples, n_classes=len(names), conf=errors.conf, per_class=settings.per_class)
    confused = confused_cases(split.samples, n_classes=len(names), conf=errors.conf)
    shown = dict(list(confused.items())[: settings.pairs])
    cases = [
        *(case for of in ranked.values() for case in (*of.worst, *of.best)),
        *(case for of in shown.values() for case in of[: settings.pair_examples]),
    ]
    drawn = draw_cases(
        split,
        model,
        cases,
        names,
        method=method,
        blocks=settings.blocks,
        progress=stages.begin("examples", len({case.image for case in cases})),
    )
    attention = _attention(split, model, errors, confused, method, peer_block, settings, stages)
    return _findings(split, errors, attention, ranked, shown, drawn, names, settings, method, facts)


def _attention(
    split: DetectedSplit,
    model: ExplainedModel,
    errors: DetectionErrors,
    confused: Mapping[tuple[int, int], Sequence[Case]],
    method: Method,
    peer_block: int,
    settings: Settings,
    stages: Stages,
) -> Attention:
    blocks, seed = settings.blocks, settings.seed
    instances = draw_instances(errors.cases, most=settings.instances, seed=seed)
    progress = stages.begin("maps of objects", len({instance.image for instance in instances}))
    measured = measure_instances(split, model, instances, method=method, blocks=blocks, progress=progress)
    classes = measure_classes(
        split,
        model,
        conf=errors.conf,
        most=settings.instances,
        method=method,
        blocks=blocks,
        seed=seed,
        progress=stages.begin("maps of classes", len(split.samples)),
    )
    mixed_up = [case for of in confused.values() for case in of[: settings.instances]]
    progress = stages.begin("maps of confused classes", len({case.image for case in mixed_up}))
    pairs = measure_pairs(split, model, mixed_up, method=method, blocks=blocks, progress=progress)
    chosen: dict[int, list[TargetMap]] = {}
    positions = draw_detections(instances, most=settings.perturbed, seed=seed)
    for position in positions:
        chosen.setdefault(instances[position].image, []).append(measured[position][1])
    progress = stages.begin("deletion and insertion", len(positions), unit="detection")
    perturbed = perturb(split, model, chosen, method=method, peer_block=peer_block, seed=seed, progress=progress)
    tables = attention_tables(split, model.names, instances=[one for one, _ in measured], classes=classes, pairs=pairs)
    return Attention(tables, perturbation_table(perturbed), perturbed)


def _findings(
    split: DetectedSplit,
    errors: DetectionErrors,
    attention: Attention,
    ranked: Mapping[int, ClassCases],
    confused: Mapping[tuple[int, int], Sequence[Case]],
    drawn: Mapping[Case, Example],
    names: Sequence[str],
    settings: Settings,
    method: Method,
    facts: Mapping[str, object],
) -> Findings:
    tables = {
        **error_tables(errors, names),
        "faithfulness": attention.tables.faithfulness,
        "deletion_insertion": attention.perturbation,
        "bias": attention.tables.bias,
        "bias_confused_pairs": attention.tables.pairs,
        "bias_co_occurrence": attention.tables.co_occurrence,
    }
    figures = error_figures(errors, split.samples, names)
    advice = recommendations(_evidence(errors, attention))
    answer = answer_of(errors, attention.tables.faithfulness)
    folders = keys.class_segments(names)
    examples = {f"worst/{folders[c]}": [drawn[case] for case in (*of.worst, *of.best)] for c, of in ranked.items()} | {
        f"pairs/{folders[true]}__{folders[other]}": [drawn[case] for case in of[: settings.pair_examples]]
        for (true, other), of in confused.items()
    }
    page = explain_report(
        f"Explanation of {split.name}",
        answer=answer,
        facts={**facts, "operating point": f"conf {errors.conf:.3f}, IoU 0.5", "maps": method.name},
        classes=[class_page(errors, c, of, drawn, names) for c, of in ranked.items()],
        pairs=[pair_page(errors, pair, of[: settings.pair_examples], drawn, names) for pair, of in confused.items()],
        sections=[
            recommendation_section(advice),
            *figure_sections(figures, CAPTIONS),
            *attention_sections(attention.tables, attention.perturbation, method.name),
            confident_section(errors),
        ],
    )
    return Findings(
        metrics=_metrics(errors, attention),
        tables={name: table for name, table in tables.items() if len(table.columns)},
        figures=figures,
        examples={path: of for path, of in examples.items() if of},
        page=page,
        answer=answer,
        recommendations=advice,
        shown={
            "Maps on their objects (energy inside against a uniform map; the ceiling is what a perfect map reaches)": (
                attention.tables.faithfulness[_SHOWN]
            ),
            "Deletion (small is good) and insertion (large is good)": attention.perturbation,
        },
    )


_SHOWN = [
    "class",
    "maps",
    "n",
    "energy",
    "coverage",
    "energy_ratio",
    "energy_ceiling",
    "pointing",
    "attention_iou_lift",
]


def _evidence(errors: DetectionErrors, attention: Attention) -> Evidence:
    bias, others = attention.tables.bias, attention.tables.co_occurrence
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


def _metrics(errors: DetectionErrors, attention: Attention) -> dict[str, float]:
    values = {
        "operating_conf": errors.conf,
        "d_ece": errors.calibration.d_ece,
        "la_ece": errors.calibration.la_ece,
        "high_confidence_errors": float(len(errors.confident)),
        **{f"delta_ap50/{name}": value for name, value in errors.types.delta_ap.items()},
    }
    faithful = attention.tables.faithfulness
    for row in faithful[faithful["class"] == "all"].to_dict("records"):
        values |= {f"{name}/{row['maps']}": row[name] for name in ("energy_ratio", "pointing", "attention_iou_lift")}
    for row in attention.perturbation.to_dict("records"):
        values |= {f"{name}/{row['map']}": row[name] for name in ("deletion", "insertion")}
    return {f"explain/{name}": float(value) for name, value in values.items() if np.isfinite(value)}
