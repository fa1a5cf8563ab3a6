"""The report on a classifier: its classes, its confused pairs, its figures, and the answer at the top."""

from collections.abc import Hashable, Mapping, Sequence

from mlflow_yolo.explanation.classification_errors import ClassificationErrors
from mlflow_yolo.explanation.gallery import Gallery
from mlflow_yolo.explanation.page import figure_sections, pair_pages, recommendation_section, table_section
from mlflow_yolo.figures.explain_report import ClassPage, explain_report

_CAPTIONS = {
    "per_class_accuracy": ("Per class", "Accuracy of every class with its 95 % Wilson interval, the lowest first."),
    "confusion_matrix": ("Confusion matrix", "Rows are true classes, columns are predicted ones."),
    "most_confused_pairs": ("Most confused pairs", "Share of the true class, with its 95 % Wilson interval."),
    "reliability": ("Calibration", "A confidence should be the share of predictions that is right."),
    "confidence_histogram": ("Confidence", "Of right and of wrong predictions."),
}
_CONFIDENT = "Wrong predictions above 0.9, the surest first. Some may be wrong labels."
_CATEGORIES = "Errors whose predicted class is of the true class's category, and of another."


def classification_page(
    errors: ClassificationErrors,
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
        gallery: The examples.
        figures: PNGs by name.
        answer: What stands at the top.
        advice: What follows from the evidence.
        facts: Names and values below the answer.
    """
    names, categories = errors.predictions.names, errors.categories
    rows = errors.classes.to_dict("records")
    return explain_report(
        f"Explanation of {errors.split}",
        answer=answer,
        facts=facts,
        classes=[ClassPage(names[c], _facts(rows[c]), worst, gallery.best[c]) for c, worst in gallery.worst.items()],
        pairs=pair_pages(gallery, errors.pairs, errors.matrix, names),
        sections=[
            recommendation_section(advice),
            *figure_sections(figures, _CAPTIONS),
            *([table_section("Categories", _CATEGORIES, categories.table)] if categories else []),
            table_section("High-confidence errors", _CONFIDENT, errors.confident.drop(columns="index"), most=50),
        ],
    )


def answer_of(errors: ClassificationErrors) -> list[str]:
    """Return the result in a few sentences, each with the numbers that it stands on."""
    predictions, classes, split = errors.predictions, errors.classes, errors.split
    n, right = len(predictions.true), int(predictions.is_correct.sum())
    sentences = [f"The model is right on {right} of {n} images of {split} ({right / max(n, 1):.1%})."]
    if right < n:
        worst = classes.iloc[int(classes["accuracy"].argmin())]
        sentences.append(
            f"It is least often right on {worst['name']}: {worst['accuracy']:.1%} of {int(worst['n'])} images "
            f"(95 % interval {worst['low']:.1%} to {worst['high']:.1%})."
        )
    for pair in errors.pairs.head(1).to_dict("records"):
        sentences.append(
            f"The most frequent confusion is {pair['true']} taken for {pair['predicted']}: {pair['count']} of "
            f"{pair['n_true']} images."
        )
    return sentences


def _facts(row: Mapping[Hashable, object]) -> dict[str, object]:
    shown = ("accuracy", "n", "precision", "f1", "top5", "mean_conf", "confused_with")
    labels = {"n": "images", "f1": "F1", "top5": "top-5", "mean_conf": "mean confidence", "confused_with": "taken for"}
    return {labels.get(name, name): row[name] for name in shown}
