"""The report on a detector: its classes, its confused pairs, its figures, and the answer at the top."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlflow_yolo.explanation.attention import Attention
from mlflow_yolo.explanation.detection_errors import DetectionErrors, calibration_table
from mlflow_yolo.explanation.examples import CONTRAST
from mlflow_yolo.explanation.gallery import Gallery
from mlflow_yolo.explanation.page import figure_sections, pair_pages, recommendation_section, table_section
from mlflow_yolo.figures.explain_report import ClassPage, explain_report
from mlflow_yolo.figures.html import Section

_CAPTIONS = {
    "per_class": ("Per class", "AP50-95 of every class, the lowest first."),
    "confusion_matrix": ("Confusion matrix", "Rows are true classes, columns are predicted ones."),
    "most_confused_pairs": ("Most confused pairs", "Share of the true class, with its 95 % Wilson interval."),
    "error_types": ("Error types", "What AP50 would gain if one type of error were corrected (TIDE)."),
    "reliability": ("Calibration", "At the operating point, a confidence should be the share that is right."),
    "confidence_histogram": ("Confidence", "Of right and of false detections, from the operating point on."),
}
_CALIBRATION = (
    "How far confidences are from what they promise, on average over detections at the operating point: D-ECE from the "
    "share that is right, LaECE from that share times the mean IoU of what is right; of all classes, D-ECE is that of "
    "all detections together and LaECE the mean over classes."
)
_CONFIDENT = (
    "Wrong detections above 0.9, the surest first. Many that lie on nothing labelled are objects without a label."
)
_FAITHFULNESS = (
    "Energy is the share of a map inside its object; a uniform map has the object's share of the image (coverage). The "
    "ratio of the two is 1 by chance; the ceiling is what a perfect map would reach: for the map of a class whose "
    "objects fill much of the image it is low, however good the map.\n\n"
    "TP, FN: maps of single detections and of missed objects, on the object. FP: of detections of nothing, on "
    "their own box. class: one map of all detections of a class, on all its objects."
)
_PERTURBATION = (
    "The pixels that a map ranks first are blurred (deletion) or are the only ones left sharp (insertion); the areas "
    "below the curves of the same detection's confidence, for {method}, Grad-CAM where the usual recipe takes it, and "
    "random maps. beats: on what share of the detections insertion minus deletion is larger; n leaves out maps that "
    "are zero everywhere."
)
_BIAS = (
    "Attention-IoU of map and object. A uniform map scores the baseline; lift is (score - baseline) / (1 - baseline), "
    "0 by chance and 1 at best, with a 95 % bootstrap interval over images."
)
_SHARED = (
    "Attention-IoU of the maps of the true and of the predicted class at the same detection: 1 where both classes rest "
    "on the same places."
)
_CO_OCCURRENCE = (
    "Attention of a class on the objects of another one in the same image. A lift above 0: more than a uniform map. "
    "own with and own without: its attention on its own objects with and without the other one around."
)
_CATEGORIES = "Confusions whose predicted class is of the true class's category, and of another."
_INTERVAL = ["n", "n_left_out", "score", "baseline", "lift", "lift_low", "lift_high"]


def detection_page(
    errors: DetectionErrors,
    attention: Attention,
    gallery: Gallery,
    figures: Mapping[str, bytes],
    *,
    answer: Sequence[str],
    advice: Sequence[str],
    facts: Mapping[str, object],
) -> str:
    """Return the report.

    Args:
        errors: What was wrong.
        attention: Where the model looked.
        gallery: The examples.
        figures: PNGs by name.
        answer: What stands at the top.
        advice: What follows from the evidence.
        facts: Names and values below the answer; `maps` among them is how maps were made.
    """
    how = f"{facts['maps']}; of confusions {CONTRAST.name}, which is signed"
    categories = errors.categories
    return explain_report(
        f"Explanation of {errors.split}",
        answer=answer,
        facts={**facts, "operating point": f"conf {errors.conf:.3f}, IoU 0.5", "maps": how},
        classes=[_class_page(errors, class_id, gallery) for class_id in gallery.worst],
        pairs=pair_pages(gallery, errors.pairs, errors.matrix, errors.names),
        sections=[
            recommendation_section(advice),
            *figure_sections(figures, _CAPTIONS),
            table_section("Calibration by class", _CALIBRATION, calibration_table(errors)),
            *([table_section("Categories", _CATEGORIES, categories.table)] if categories else []),
            *_attention_sections(attention, str(facts["maps"])),
            table_section("High-confidence errors", _CONFIDENT, _shown_cases(errors.confident), most=50),
        ],
    )


def _attention_sections(attention: Attention, method: str) -> list[Section]:
    """Return what stands about maps: on objects, under deletion, and in bias."""
    pair, bias = ["class", "other", *_INTERVAL], ["class", "size", "outcome", *_INTERVAL]
    others = attention.co_occurrence.drop(columns=["class_id", "other_id"])
    return [
        table_section("Do the maps lie on the objects?", _FAITHFULNESS, attention.faithfulness),
        table_section(
            "Does the model rest on what the maps mark?",
            _PERTURBATION.format(method=method),
            attention.deletion_insertion,
        ),
        table_section("Bias: attention on objects", _BIAS, attention.bias[bias]),
        table_section("Bias: shared evidence of confused classes", _SHARED, attention.pairs[pair]),
        table_section("Bias: co-occurrence", _CO_OCCURRENCE, others),
    ]


def _class_page(errors: DetectionErrors, class_id: int, gallery: Gallery) -> ClassPage:
    """Return what the report shows of one class."""
    row = errors.classes.iloc[class_id]
    columns = ["ap50_95", "ap50", "n_objects", "n_detections", "precision", "recall", "missed", "background"]
    facts = {_LABELS.get(name, name): row[name] for name in columns}
    return ClassPage(errors.names[class_id], facts, worst=gallery.worst[class_id], best=gallery.best[class_id])


_LABELS = {"ap50_95": "AP50-95", "ap50": "AP50", "n_objects": "objects", "n_detections": "detections"}


def _shown_cases(cases: pd.DataFrame) -> pd.DataFrame:
    return cases[["name", "class", "subtype", "other", "conf", "iou", "severity"]]


def answer_of(errors: DetectionErrors, faithful: pd.DataFrame) -> list[str]:
    """Return the result in a few sentences, each with the numbers that it stands on.

    Args:
        errors: What was wrong.
        faithful: Where maps lie, see `attention.localisation_table`.
    """
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
    for row in faithful[(faithful["class"] == "all") & (faithful["maps"] == "TP") & (faithful["n"] > 0)].to_dict(
        "records"
    ):
        sentences.append(
            f"Maps of right detections hold {row['energy']:.0%} of their energy on the object, "
            f"{row['energy_ratio']:.1f} times what a uniform map would (at best {row['energy_ceiling']:.1f}; "
            f"n={row['n']})."
        )
    n_empty = int(faithful[faithful["class"] == "all"]["n_left_out"].sum())
    if n_empty:
        sentences.append(
            f"{n_empty} maps are left out: empty, because their block has no influence on what was explained, or "
            "without an object to lie on."
        )
    return sentences
