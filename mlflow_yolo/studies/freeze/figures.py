"""The figures of a freeze ablation, drawn from its children's results and predictions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mlflow_yolo.detection.confusion import confusion_matrix, normalise
from mlflow_yolo.detection.evaluation import Evaluation, evaluate
from mlflow_yolo.detection.samples import Sample
from mlflow_yolo.figures.accuracy_against_time import accuracy_against_time
from mlflow_yolo.figures.confusion_grid import confusion_grid
from mlflow_yolo.figures.depth_effect import ConfigurationEffect, depth_effect
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.f1_per_class import f1_per_class
from mlflow_yolo.figures.learning_curves import learning_curves
from mlflow_yolo.figures.precision_recall import precision_recall
from mlflow_yolo.figures.side_by_side import ImageBoxes, side_by_side
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.studies.freeze.analysis import FreezeAnalysis, Row

Floats = npt.NDArray[np.float64]

_CURVES = {"mAP50-95": "metrics/mAP50-95B", "top1": "metrics/accuracy_top1"}
_N_PICTURES = 4


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Attributes:
        name: File name without suffix.
        heading: What it answers.
        text: How to read it.
        figure: The figure.
        file: Where its PNG lies.
    """

    name: str
    heading: str
    text: str
    figure: Figure
    file: Path


def draw(analysis: FreezeAnalysis, directory: Path, root: Path) -> list[Picture]:
    """Draw every figure the children's results allow and write each as PNG under `directory/figures`.

    Args:
        analysis: The comparison.
        directory: The study's folder.
        root: The folder that image names in the predictions are relative to.
    """
    (directory / "figures").mkdir(exist_ok=True)
    pictures = []
    for name, heading, text, figure in _figures(analysis, root):
        file = directory / "figures" / f"{name}.png"
        file.write_bytes(png_bytes(figure))
        pictures.append(Picture(name, heading, text, figure, file))
    return pictures


Drawn = tuple[str, str, str, Figure]


def _figures(analysis: FreezeAnalysis, root: Path) -> Iterator[Drawn]:
    """Yield every figure as (name, heading, text, figure)."""
    yield (
        "depth_effect",
        f"{analysis.metric} by frozen blocks",
        "Small dots are seeds, the large one their mean with its 95 % interval; on the right the difference to "
        "freezing nothing with its 95 % interval over images.",
        _depth_effect(analysis),
    )
    curve = _CURVES[analysis.metric]
    yield (
        "learning_curves",
        "How it learned",
        "Values on the val split after every epoch; the band spans the seeds.",
        learning_curves(
            {row.freeze.label: _stacked(row, curve) for row in analysis.rows}, metric=analysis.metric, split="val"
        ),
    )
    yield (
        "accuracy_against_time",
        "What a second of training bought",
        "One dot a training, the mean marked.",
        accuracy_against_time(
            {row.freeze.label: [child.result["train_s"] for child in row.children] for row in analysis.rows},
            {row.freeze.label: _scores(row, analysis) for row in analysis.rows},
            metric=analysis.metric,
            split=analysis.split,
        ),
    )
    samples = {row.freeze.label: [child.samples(analysis.split) for child in row.children] for row in analysis.rows}
    if all(children and all(children) for children in samples.values()):
        yield from _detection_figures(analysis, samples, root)
    elif analysis.task == "classify":
        yield _confusion(analysis, {row.freeze.label: _class_confusion(row, analysis) for row in analysis.rows}, None)


def _detection_figures(analysis: FreezeAnalysis, samples: dict[str, list[list[Sample]]], root: Path) -> Iterator[Drawn]:
    """Yield the figures that need boxes."""
    n_classes = len(analysis.names)
    evaluations = {label: [evaluate(s, n_classes=n_classes) for s in children] for label, children in samples.items()}
    yield (
        "precision_recall",
        "Precision against recall",
        f"On the {analysis.split} split at IoU 0.50, mean over classes; COCO's interpolation.",
        precision_recall(_stack(evaluations, "pr_curve"), split=analysis.split),
    )
    yield (
        "f1_per_class",
        "F1 by class",
        f"On the {analysis.split} split at IoU 0.50, each training at the confidence where its mean F1 peaks.",
        f1_per_class(_stack(evaluations, "f1_per_class"), names=analysis.names, split=analysis.split),
    )
    conf = round(float(np.mean([child.result["operating_conf"] for row in analysis.rows for child in row.children])), 3)
    matrices = {
        label: normalise(np.sum([confusion_matrix(s, n_classes=n_classes, conf=conf) for s in children], axis=0))
        for label, children in samples.items()
    }
    yield _confusion(analysis, matrices, conf)
    yield (
        "side_by_side",
        "The same images",
        f"Images of the val split, ground truth first, then each configuration's first seed at confidence {conf:.2f} "
        "or more.",
        _side_by_side(
            analysis, {row.freeze.label: row.children[0].samples("val") for row in analysis.rows}, conf, root
        ),
    )


def _depth_effect(analysis: FreezeAnalysis) -> Figure:
    return depth_effect(
        [
            ConfigurationEffect(
                name=row.freeze.label,
                scores=_scores(row, analysis),
                mean=row.mean,
                low=row.low,
                high=row.high,
                difference=row.images.difference if row.images else row.seeds.difference if row.seeds else math.nan,
                difference_low=row.images.low if row.images else math.nan,
                difference_high=row.images.high if row.images else math.nan,
                verdict=row.verdict.text if row.verdict else "",
            )
            for row in analysis.rows
        ],
        metric=analysis.metric,
        split=analysis.split,
        n_images=analysis.n_images,
    )


def _confusion(analysis: FreezeAnalysis, matrices: dict[str, Floats], conf: float | None) -> Drawn:
    at = "" if conf is None else f" at confidence {conf:.2f} (where mean F1 peaks on val) and IoU 0.50"
    return (
        "confusion",
        "What was taken for what",
        f"All seeds together on the {analysis.split} split{at}; each row is a true class and sums to 1.",
        confusion_grid(
            matrices, names=analysis.names, split=analysis.split, conf=conf, iou=None if conf is None else 0.5
        ),
    )


def _class_confusion(row: Row, analysis: FreezeAnalysis) -> Floats:
    """Return the row-normalised confusion matrix of a classifier; its background row and column stay empty."""
    counts = np.zeros((len(analysis.names) + 1,) * 2, dtype=np.int64)
    for child in row.children:
        np.add.at(counts, tuple(child.labels(analysis.split).T), 1)
    return normalise(counts)


def _scores(row: Row, analysis: FreezeAnalysis) -> list[float]:
    return [child.value(analysis.split, analysis.metric) for child in row.children]


def _stacked(row: Row, name: str) -> Floats:
    """Return a per-epoch value of all seeds, (n_seeds, n_epochs), padded with NaN where a training stopped early."""
    curves = [child.result["curves"].get(name, []) for child in row.children]
    stacked = np.full((len(curves), max(map(len, curves), default=0)), np.nan)
    for index, curve in enumerate(curves):
        stacked[index, : len(curve)] = curve
    return stacked


def _stack(evaluations: dict[str, list[Evaluation]], name: str) -> dict[str, Floats]:
    return {label: np.stack([getattr(e, name) for e in children]) for label, children in evaluations.items()}


def _side_by_side(analysis: FreezeAnalysis, samples: dict[str, list[Sample]], conf: float, root: Path) -> Figure:
    """Return the same few images with the ground truth and with each configuration's boxes."""
    truth = next(iter(samples.values()))
    chosen = [index * len(truth) // _N_PICTURES for index in range(min(_N_PICTURES, len(truth)))]
    images = [np.asarray(Image.open(root / truth[i].image).convert("RGB")) for i in chosen]
    found = {
        label: [_boxes(children[i], children[i].scores >= conf) for i in chosen] for label, children in samples.items()
    }
    actual = [ImageBoxes(truth[i].gt_boxes, truth[i].gt_classes, None) for i in chosen]
    titles = [Path(truth[i].image).name for i in chosen]
    return side_by_side(images, actual, found, names=analysis.names, split="val", titles=titles, conf=conf)


def _boxes(sample: Sample, kept: npt.NDArray[np.bool_]) -> ImageBoxes:
    return ImageBoxes(sample.boxes[kept], sample.classes[kept], sample.scores[kept])
