"""What a classifier got wrong on a split, and where it looked: everything from one forward pass."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlflow_yolo.attribution.cam import find_method
from mlflow_yolo.attribution.class_maps import LEAST_CELLS
from mlflow_yolo.attribution.targets import ImageLogit
from mlflow_yolo.classification.best_and_worst import Case, confused_cases, rank_cases
from mlflow_yolo.classification.categories import Categories
from mlflow_yolo.classification.predictions import Predictions
from mlflow_yolo.classification.recommendations import Evidence, recommendations
from mlflow_yolo.explanation.batches import Mapper
from mlflow_yolo.explanation.classification_errors import (
    ClassificationErrors,
    error_figures,
    error_tables,
    find_errors,
)
from mlflow_yolo.explanation.classification_page import answer_of, classification_page
from mlflow_yolo.explanation.examples import CONTRAST, difference_layers
from mlflow_yolo.explanation.findings import Findings, Settings
from mlflow_yolo.explanation.gallery import Chosen, hang
from mlflow_yolo.explanation.network import ExplainedModel
from mlflow_yolo.explanation.split import ClassifiedSplit
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.example import Example, MapLayer
from mlflow_yolo.stages import Stages

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
    images = tuple(_name(file, root) for file in split.files)
    predictions = Predictions(images, split.true, split.probabilities, model.names)
    chosen = choose_cases(predictions, settings)
    cases = chosen.cases()
    maps, how = _maps(split, model, cases, settings, stages)
    stages.begin("report", 1)
    gallery = hang(chosen, {case: _example(case, split, maps[case], predictions) for case in cases})
    errors = find_errors(predictions, split=split.name, groups=groups)
    figures = {name: png_bytes(figure) for name, figure in error_figures(errors).items()}
    answer, advice = answer_of(errors), recommendations(evidence_of(errors))
    lowest = errors.classes.nsmallest(5, "accuracy")
    return Findings(
        metrics=metrics_of(errors),
        tables=error_tables(errors),
        figures=figures,
        examples=gallery.files(model.names),
        page=classification_page(errors, gallery, figures, answer=answer, advice=advice, facts={**facts, "maps": how}),
        answer=answer,
        recommendations=advice,
        shown={"Lowest accuracy": lowest[["name", "n", "accuracy", "low", "high", "confused_with", "confused_count"]]},
    )


def choose_cases(predictions: Predictions, settings: Settings) -> Chosen[Case]:
    """Return the worst and best images of every class, and the surest ones of the most confused pairs."""
    confused = sorted(confused_cases(predictions).items(), key=lambda item: (-len(item[1]), item[0]))
    pairs = {pair: cases[: settings.pair_examples] for pair, cases in confused[: settings.pairs]}
    return Chosen(rank_cases(predictions, per_class=settings.per_class), pairs)


def _maps(
    split: ClassifiedSplit, model: ExplainedModel, cases: Sequence[Case], settings: Settings, stages: Stages
) -> tuple[dict[Case, tuple[Map, Map]], str]:
    """Return the maps of the true and of the predicted class of every case, and how they were made."""
    height, width = split.maps.shape[2:]
    method = None if settings.method == CLOSED_FORM else settings.method
    if method is None and settings.block is None and height * width >= LEAST_CELLS:
        return {case: (split.maps[case.image, 0], split.maps[case.image, 1]) for case in cases}, "exact (CAM)"
    chosen = CONTRAST if method is None else find_method(method)
    first = split.input(cases[0].image) if cases else split.input(0)
    finest = model.layers.deepest_with(LEAST_CELLS, (int(first.shape[-2]), int(first.shape[-1])))
    blocks = settings.blocks or (finest,)
    mapper = Mapper(model, split.input, chosen, blocks, batch=16, stages=stages)
    wanted = {case.image: [ImageLogit(case.class_id), ImageLogit(case.predicted)] for case in cases}
    made = mapper.maps(wanted, stage="maps")
    maps = {case: (made[case.image][0].values.numpy(), made[case.image][1].values.numpy()) for case in cases}
    return maps, f"{chosen.name}, block {blocks[0]}"


def _example(case: Case, split: ClassifiedSplit, maps: tuple[Map, Map], predictions: Predictions) -> Example:
    true, predicted = predictions.names[case.class_id], predictions.names[case.predicted]
    if case.class_id == case.predicted:
        title = f"{true}, {case.conf:.0%}"
        layers: tuple[MapLayer, ...] = (MapLayer(f"for {true}", maps[0]),)
    else:
        title = f"{true} taken for {predicted}, {case.conf:.0%} ({true}: {case.true_probability:.0%})"
        layers = difference_layers(*maps, true=true, predicted=predicted)
    caption = f"{predictions.images[case.image]}, severity {case.severity:.2f}"
    return Example(title, caption, split.rgb(case.image), layers)


def evidence_of(errors: ClassificationErrors) -> Evidence:
    """Return what recommendations are made from."""
    return Evidence(
        split=errors.split,
        pairs=errors.pairs,
        classes=errors.classes,
        confidence=errors.confidence,
        categories=errors.categories,
    )


def metrics_of(errors: ClassificationErrors) -> dict[str, float]:
    """Return the numbers of the whole split, by metric key; what could not be measured is left out."""
    accuracy = errors.classes["accuracy"]
    values = {
        "top1": float(np.mean(errors.predictions.is_correct)),
        "ece": errors.confidence.error,
        "high_confidence_errors": float(len(errors.confident)),
        "accuracy_lowest_class": float(accuracy.min()),
        "accuracy_p10": float(accuracy.quantile(0.1)),
    }
    values |= {"errors_within_category": errors.categories.within_share} if errors.categories else {}
    return {f"explain/{name}": value for name, value in values.items() if np.isfinite(value)}


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
