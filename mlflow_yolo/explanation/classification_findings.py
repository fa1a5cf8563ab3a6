"""What a classifier got wrong on a split, and where it looked: everything from one forward pass."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlflow_yolo import keys
from mlflow_yolo.attribution.cam import find_method
from mlflow_yolo.attribution.class_maps import LEAST_CELLS
from mlflow_yolo.attribution.targets import ImageLogit
from mlflow_yolo.classification.best_and_worst import Case, all_cases, confused_cases, rank_cases
from mlflow_yolo.classification.calibration import (
    confidence_counts,
    high_confidence_errors,
    reliability,
    summarise,
)
from mlflow_yolo.classification.categories import Categories, category_errors
from mlflow_yolo.classification.class_table import class_table
from mlflow_yolo.classification.confused_pairs import confused_pairs
from mlflow_yolo.classification.confusion import cluster_order, confusion_matrix, mean_confidences
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.classification.recommendations import Evidence, recommendations
from mlflow_yolo.explanation.batches import map_pictures
from mlflow_yolo.explanation.detection_errors import CONFIDENT, MOST_IN_ORDER
from mlflow_yolo.explanation.examples import difference_layers
from mlflow_yolo.explanation.findings import Findings, Settings
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.page import figure_sections, recommendation_section, table_of
from mlflow_yolo.explanation.split import ClassifiedSplit
from mlflow_yolo.explanation.stages import Stages
from mlflow_yolo.figures.class_bars import class_bars
from mlflow_yolo.figures.confidence_histogram import confidence_histogram
from mlflow_yolo.figures.confused_pairs_chart import confused_pairs_chart
from mlflow_yolo.figures.confusion_matrix import confusion_matrix as draw_matrix
from mlflow_yolo.figures.example import Example, MapLayer
from mlflow_yolo.figures.explain_report import ClassPage, PairPage, explain_report
from mlflow_yolo.figures.html import Section
from mlflow_yolo.figures.reliability import reliability_diagram
from mlflow_yolo.figures.style import Figure

Map = npt.NDArray[np.float32]

CLOSED_FORM = "cam"
"""The exact maps of the last features; Grad-CAM and HiResCAM are the same there."""


def explain_classifier(
    split: ClassifiedSplit,
    model: ExplainedModel,
    *,
    root: Path,
    settings: Settings,
    groups: Categories | None = None,
    facts: Mapping[str, object],
    stages: Stages,
) -> Findings:
    """Return everything that is found about a classifier on a split.

    Args:
        split: What it made of the images.
        model: The model; asked for further maps only where those of the pass are too coarse, or another method or block
            is wanted.
        root: Folder that image names are relative to.
        settings: How much is looked at.
        groups: Categories of the classes.
        facts: What stands at the top of the report.
        stages: Told about progress.
    """
    names = model.names
    images = tuple(_name(file, root) for file in split.files)
    predictions = Predictions(images, split.true, split.probabilities, names)
    ranked = rank_cases(predictions, per_class=settings.per_class)
    confused = dict(list(_most_first(confused_cases(predictions)))[: settings.pairs])
    cases = [
        *(case for of in ranked.values() for case in (*of.worst, *of.best)),
        *(case for of in confused.values() for case in of[: settings.pair_examples]),
    ]
    maps, how = _maps(split, model, cases, settings, stages)
    drawn = {case: _example(case, split, maps[case], images, names) for case in dict.fromkeys(cases)}
    matrix = confusion_matrix(predictions)
    classes = class_table(predictions)
    rows = classes.to_dict("records")
    pairs = confused_pairs(matrix, names, mean_conf=mean_confidences(predictions))
    confidence = summarise(predictions.confidence, predictions.is_correct, above=CONFIDENT)
    errors = category_errors(matrix, groups) if groups else None
    confident = high_confidence_errors(predictions, above=CONFIDENT)
    advice = recommendations(
        Evidence(
            split=split.name, what="images", pairs=pairs, classes=classes, confidence=confidence, categories=errors
        )
    )
    figures = _figures(predictions, matrix, classes, pairs, split=split.name, error=confidence.error)
    answer = _answer(predictions, classes, pairs, split.name)
    folders = keys.class_segments(names)
    page = explain_report(
        f"Explanation of {split.name}",
        answer=answer,
        facts={**facts, "maps": how},
        classes=[
            ClassPage(name, _facts(rows[c]), _all(drawn, ranked[c].worst), _all(drawn, ranked[c].best))
            for c, name in enumerate(names)
        ],
        pairs=[
            PairPage(names[t], names[p], _pair_facts(pairs, matrix, t, p), _all(drawn, of[: settings.pair_examples]))
            for (t, p), of in confused.items()
        ],
        sections=[
            recommendation_section(advice),
            *figure_sections(figures, _CAPTIONS),
            *([Section("Categories", _CATEGORIES, table_of(errors.table))] if errors else []),
            Section("High-confidence errors", _CONFIDENT, table_of(confident.drop(columns="index"), most=50)),
        ],
    )
    metrics = {
        "top1": float(np.mean(predictions.is_correct)),
        "ece": confidence.error,
        "high_confidence_errors": float(len(confident)),
        "accuracy_lowest_class": float(classes["accuracy"].min()),
        "accuracy_p10": float(classes["accuracy"].quantile(0.1)),
        **({"errors_within_category": errors.within_share} if errors else {}),
    }
    return Findings(
        metrics={f"explain/{name}": value for name, value in metrics.items() if np.isfinite(value)},
        tables={
            "per_class_accuracy": classes,
            "most_confused_pairs": pairs,
            "confusion_matrix": pd.DataFrame(matrix, names, names).rename_axis("true \\ predicted").reset_index(),
            "worst_predictions": all_cases(predictions),
            "high_confidence_errors": confident,
            **({"categories": errors.table} if errors else {}),
        },
        figures=figures,
        examples={
            path: of
            for path, of in {
                **{f"worst/{folders[c]}": _all(drawn, (*r.worst, *r.best)) for c, r in ranked.items()},
                **{
                    f"pairs/{folders[t]}__{folders[p]}": _all(drawn, of[: settings.pair_examples])
                    for (t, p), of in confused.items()
                },
            }.items()
            if of
        },
        page=page,
        answer=answer,
        recommendations=advice,
        shown={"Lowest accuracy": classes.nsmallest(5, "accuracy")[_SHOWN]},
    )


_SHOWN = ["name", "n", "accuracy", "low", "high", "confused_with", "confused_count"]
_CAPTIONS = {
    "per_class_accuracy": ("Per class", "Accuracy of every class with its 95 % Wilson interval, the lowest first."),
    "confusion_matrix": ("Confusion matrix", "Rows are true classes, columns are predicted ones."),
    "most_confused_pairs": ("Most confused pairs", "Share of the true class, with its 95 % Wilson interval."),
    "reliability": ("Calibration", "A confidence should be the share of predictions that is right."),
    "confidence_histogram": ("Confidence", "Of right and of wrong predictions."),
}
_CONFIDENT = "Wrong predictions above 0.9, the surest first. Some may be wrong labels."
_CATEGORIES = "Errors whose predicted class is of the true class's category, and of another."


def _maps(
    split: ClassifiedSplit, model: ExplainedModel, cases: Sequence[Case], settings: Settings, stages: Stages
) -> tuple[dict[Case, tuple[Map, Map]], str]:
    """Return the maps of the true and of the predicted class of every case, and how they were made."""
    height, width = split.maps.shape[2:]
    asked = settings.method not in (None, CLOSED_FORM) or settings.block is not None
    if not asked and height * width >= LEAST_CELLS:
        return {case: (split.maps[case.image, 0], split.maps[case.image, 1]) for case in cases}, "exact (CAM)"
    method = find_method(settings.method if settings.method not in (None, CLOSED_FORM) else "hirescam")
    first = split.input(0)
    finest = model.layers.deepest_with(LEAST_CELLS, (int(first.shape[-2]), int(first.shape[-1])))
    blocks = settings.blocks or (finest,)
    unique = list(dict.fromkeys(cases))
    wanted = {case.image: [ImageLogit(case.class_id), ImageLogit(case.predicted)] for case in unique}
    progress = stages.begin("maps", len(wanted))
    made = map_pictures(model, split.input, wanted, method=method, blocks=blocks, batch=16, progress=progress)
    maps = {case: (made[case.image][0].values.numpy(), made[case.image][1].values.numpy()) for case in unique}
    return maps, f"{method.name}, block {blocks[0]}"


def _example(
    case: Case, split: ClassifiedSplit, maps: tuple[Map, Map], images: Sequence[str], names: Sequence[str]
) -> Example:
    true, predicted = names[case.class_id], names[case.predicted]
    if case.class_id == case.predicted:
        title = f"{true}, {case.conf:.0%}"
        layers: tuple[MapLayer, ...] = (MapLayer(f"for {true}", maps[0]),)
    else:
        title = f"{true} taken for {predicted}, {case.conf:.0%} ({true}: {case.true_probability:.0%})"
        layers = difference_layers(*maps, true=true, predicted=predicted)
    return Example(title, f"{images[case.image]}, severity {case.severity:.2f}", split.rgb(case.image), layers)


def _figures(
    predictions: Predictions,
    matrix: npt.NDArray[np.int64],
    classes: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    split: str,
    error: float,
) -> dict[str, Figure]:
    names = predictions.names
    bins = reliability(predictions.confidence, predictions.is_correct)
    counts = confidence_counts(predictions.confidence, predictions.is_correct)
    order = cluster_order(matrix) if len(names) > MOST_IN_ORDER else None
    low, high, n = (classes[name].to_numpy() for name in ("low", "high", "n"))
    return {
        "confusion_matrix": draw_matrix(matrix, names, split=split, order=order),
        "per_class_accuracy": class_bars(classes["accuracy"], names, split=split, low=low, high=high, n=n),
        "most_confused_pairs": confused_pairs_chart(pairs, split=split),
        "reliability": reliability_diagram(
            bins.edges, bins.mean_conf, bins.accuracy, bins.n, split=split, error=error, low=bins.low, high=bins.high
        ),
        "confidence_histogram": confidence_histogram(
            counts.edges, counts.right, counts.wrong, split=split, above=CONFIDENT
        ),
    }


def _answer(predictions: Predictions, classes: pd.DataFrame, pairs: pd.DataFrame, split: str) -> list[str]:
    n, right = len(predictions.true), int(predictions.is_correct.sum())
    sentences = [f"The model is right on {right} of {n} images of {split} ({right / max(n, 1):.1%})."]
    if classes["accuracy"].notna().any():
        worst = classes.iloc[int(classes["accuracy"].argmin())]
        sentences.append(
            f"It is least often right on {worst['name']}: {worst['accuracy']:.1%} of {int(worst['n'])} images "
            f"(95 % interval {worst['low']:.1%} to {worst['high']:.1%})."
        )
    if len(pairs):
        first = pairs.iloc[0]
        sentences.append(
            f"The most frequent confusion is {first['true']} taken for {first['predicted']}: {first['count']} of "
            f"{first['n_true']} images."
        )
    return sentences


def _facts(row: Mapping[Hashable, object]) -> dict[str, object]:
    shown = ("accuracy", "n", "precision", "f1", "top5", "mean_conf", "confused_with")
    labels = {"n": "images", "f1": "F1", "top5": "top-5", "mean_conf": "mean confidence", "confused_with": "taken for"}
    return {labels.get(name, name): row[name] for name in shown}


def _pair_facts(pairs: pd.DataFrame, matrix: npt.NDArray[np.int64], true: int, predicted: int) -> dict[str, object]:
    found = pairs[(pairs["true_id"] == true) & (pairs["predicted_id"] == predicted)]
    facts: dict[str, object] = {"confused": int(matrix[true, predicted])}
    if len(found):
        row = found.iloc[0]
        facts |= {"rate": row["rate"], "95 % interval": f"{row['low']:.3f} to {row['high']:.3f}"}
    return facts


def _most_first(
    pairs: Mapping[tuple[int, int], tuple[Case, ...]],
) -> list[tuple[tuple[int, int], tuple[Case, ...]]]:
    return sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))


def _all(drawn: Mapping[Case, Example], cases: Sequence[Case]) -> list[Example]:
    return [drawn[case] for case in cases]


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
