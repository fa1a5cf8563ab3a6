"""The report on a detector: its classes, its confused pairs, its figures, and the answer at the top."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlflow_yolo.detection.worst_predictions import Case, ClassCases
from mlflow_yolo.explanation.attention import AttentionTables
from mlflow_yolo.explanation.detection_errors import DetectionErrors
from mlflow_yolo.explanation.page import table_of
from mlflow_yolo.figures.example import Example
from mlflow_yolo.figures.explain_report import ClassPage, PairPage
from mlflow_yolo.figures.html import Section

_CASE_COLUMNS = ["name", "class", "subtype", "other", "conf", "iou", "severity"]
_CONFIDENT = (
    "Wrong detections above 0.9, the surest first. Many that lie on nothing labelled are objects without a label."
)
CAPTIONS = {
    "per_class": ("Per class", "AP50-95 of every class, the lowest first."),
    "confusion_matrix": ("Confusion matrix", "Rows are true classes, columns are predicted ones."),
    "most_confused_pairs": ("Most confused pairs", "Share of the true class, with its 95 % Wilson interval."),
    "error_types": ("Error types", "What AP50 would gain if one type of error were corrected (TIDE)."),
    "reliability": (
        "Calibration",
        "At the operating point, a confidence should be the share that is right.",
    ),
    "confidence_histogram": ("Confidence", "Of right and of false detections, from the operating point on."),
}


def confident_section(errors: DetectionErrors) -> Section:
    """Return the table of wrong detections that the model was sure of."""
    return Section("High-confidence errors", _CONFIDENT, table_of(errors.confident, _CASE_COLUMNS, most=50))


def attention_sections(tables: AttentionTables, perturbation: pd.DataFrame, method: str) -> list[Section]:
    """Return what stands about maps: on objects, under deletion, and in bias."""
    return [
        Section(
            "Do the maps lie on the objects?",
            "Energy is the share of a map inside its object; a uniform map has the object's share of the image "
            "(coverage). The ratio of the two is 1 by chance; the ceiling is what a perfect map would reach: for "
            "the map of a class whose objects fill much of the image it is low, however good the map.\n\n"
            "TP, FN, FP: maps of single detections and of missed objects. class: one map of all detections of a class.",
            table_of(tables.faithfulness),
        ),
        Section(
            "Does the model rest on what the maps mark?",
            f"The pixels that a map ranks first are blurred (deletion) or are the only ones left sharp (insertion); "
            f"the areas below the curves of the same detection's confidence, for {method}, Grad-CAM where the usual "
            f"recipe takes it, and random maps.",
            table_of(perturbation),
        ),
        Section(
            "Bias: attention on objects",
            "Attention-IoU of map and object. A uniform map scores the baseline; lift is (score - baseline) / (1 - "
            "baseline), 0 by chance and 1 at best, with a 95 % bootstrap interval over images.",
            table_of(tables.bias, _BIAS),
        ),
        Section(
            "Bias: shared evidence of confused classes",
            "Attention-IoU of the maps of the true and of the predicted class at the same detection: 1 where both "
            "classes rest on the same places.",
            table_of(tables.pairs, _BIAS_PAIRS),
        ),
        Section(
            "Bias: co-occurrence",
            "Attention of a class on the objects of another one in the same image. A lift above 0: more than a uniform "
            "map. own_with and own_without: its attention on its own objects with and without the other one around.",
            table_of(tables.co_occurrence.drop(columns=["class_id", "other_id"])),
        ),
    ]


_BIAS = ["class", "size", "outcome", "n", "n_left_out", "score", "baseline", "lift", "lift_low", "lift_high"]
_BIAS_PAIRS = ["class", "other", "n", "n_left_out", "score", "baseline", "lift", "lift_low", "lift_high"]


def class_page(
    errors: DetectionErrors, class_id: int, cases: ClassCases, drawn: Mapping[Case, Example], names: Sequence[str]
) -> ClassPage:
    """Return what the report shows of one class."""
    row = errors.classes.iloc[class_id]
    columns = ["ap50_95", "ap50", "n_objects", "n_detections", "precision", "recall", "missed", "background"]
    return ClassPage(
        names[class_id],
        {_LABELS.get(name, name): row[name] for name in columns},
        worst=[drawn[case] for case in cases.worst],
        best=[drawn[case] for case in cases.best],
    )


_LABELS = {"ap50_95": "AP50-95", "ap50": "AP50", "n_objects": "objects", "n_detections": "detections"}


def pair_page(
    errors: DetectionErrors,
    pair: tuple[int, int],
    cases: Sequence[Case],
    drawn: Mapping[Case, Example],
    names: Sequence[str],
) -> PairPage:
    """Return what the report shows of one confused pair."""
    true, predicted = pair
    found = errors.pairs[(errors.pairs["true_id"] == true) & (errors.pairs["predicted_id"] == predicted)]
    facts: dict[str, object] = {"confused": int(errors.matrix[true, predicted])}
    if len(found):
        row = found.iloc[0]
        facts |= {"rate": row["rate"], "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}"}
    return PairPage(names[true], names[predicted], facts, [drawn[case] for case in cases])


def answer_of(errors: DetectionErrors, faithful: pd.DataFrame) -> list[str]:
    """Return the result in a few sentences, each with the numbers that it stands on."""
    classes, types = errors.classes, errors.types
    found = errors.cases[errors.cases["detection"].notna()]
    n_right = int(found["right"].sum())
    sentences = [
        f"At confidence {errors.conf:.2f} the model finds {n_right} of {int(classes['n_objects'].sum())} objects of "
        f"{errors.split}, and {n_right} of its {len(found)} detections are right (IoU 0.5)."
    ]
    gains = {name: types.delta_ap[name] for name in types.totals if np.isfinite(types.delta_ap[name])}
    if gains and max(gains.values()) > 0:
        worst = max(gains, key=lambda name: gains[name])
        sentences.append(
            f"The errors that cost most are of type {worst}: without them AP50 would rise from {types.ap:.3f} by "
            f"{gains[worst]:.3f} ({errors.counts[worst]} such errors at this confidence)."
        )
    for row in faithful[(faithful["class"] == "all") & (faithful["maps"] == "TP")].to_dict("records"):
        sentences.append(
            f"Maps of right detections hold {row['energy']:.0%} of their energy on the object, "
            f"{row['energy_ratio']:.1f} times what a uniform map would (at best {row['energy_ceiling']:.1f}; "
            f"n={row['n']})."
        )
    return sentences
