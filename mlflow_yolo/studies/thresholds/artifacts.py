"""Files of a `thresholds` run: table, heat maps, curves, `operating_point.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.operating_measures import measures
from mlflow_yolo.detection.ranking import Ranking
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.style import Figure
from mlflow_yolo.figures.threshold_curves import threshold_curves
from mlflow_yolo.figures.threshold_html import threshold_html
from mlflow_yolo.figures.threshold_surface import Heat, threshold_surface
from mlflow_yolo.studies.thresholds.recommendation import DEFAULT_CONF
from mlflow_yolo.studies.thresholds.report import FOLDER, WHY_NOT_MAP, measure_label, terminal_text
from mlflow_yolo.studies.thresholds.result import Result, class_table, operating_point, table
from mlflow_yolo.studies.thresholds.subject import CHOOSING_SPLIT

OPERATING_POINT = "operating_point.json"
_DRAWN = ("precision", "recall", "f1", "f_beta", "mAP50", "mAP50-95", "cost", "detections")
_GOOD = {"cost": "low", "detections": "neither"}
_CURVES = ("precision", "recall", "f1", "f_beta")
_N_CURVE = 400


def write_files(result: Result, at_choice: MatchArrays, directory: Path) -> Path:
    """Write everything below `directory/thresholds` and return that folder.

    Args:
        result: What came out.
        at_choice: What was detected on the choosing split at the overlap that was chosen.
        directory: The run's folder.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    table(result).to_csv(folder / "table.csv", index=False)
    class_table(result).to_csv(folder / "per_class.csv", index=False)
    (folder / "summary.txt").write_text(terminal_text(result) + "\n", encoding="utf-8")
    write_point(result, folder / OPERATING_POINT)
    surface = result.found.surface
    about: dict[str, Any] = {
        "confs": surface.confs,
        "ious": surface.ious,
        "split": f"{CHOOSING_SPLIT} of {result.subject.dataset.name}",
        "point": result.found.point,
    }
    heats = {name: Heat(surface.values[name], measure_label(name, result), _GOOD.get(name, "high")) for name in _DRAWN}
    (folder / "surface.png").write_bytes(png_bytes(threshold_surface(heats, **about, reading=_reading(result))))
    page = threshold_html(heats, **about, first=result.question.objective.measure)
    (folder / "surface.html").write_text(page, encoding="utf-8")
    (folder / "curves.png").write_bytes(png_bytes(_curves(result, at_choice)))
    return folder


def write_point(result: Result, file: Path) -> None:
    """Write `operating_point.json`."""
    file.write_text(json.dumps(operating_point(result), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _reading(result: Result) -> str:
    judged = "masks" if result.masks else "boxes"
    means = f"Right: {judged} overlap an object of the class by IoU {result.question.match_iou:g}."
    return f"{means} {WHY_NOT_MAP}"


def _curves(result: Result, arrays: MatchArrays) -> Figure:
    question = result.question
    ranking = Ranking.of(arrays, level=question.level, masks=result.masks)
    confs = (
        np.linspace(*question.span, _N_CURVE) if question.span[0] < question.span[1] else np.array(question.span[:1])
    )
    found = measures(*ranking.counts(confs), ranking.n_objects, ranking.n_images, question.objective.weighing)
    chosen = "best for all classes" if result.found.ships_per_class else "chosen"
    return threshold_curves(
        {measure_label(name, result): found[name] for name in _CURVES},
        confs=confs,
        split=f"{CHOOSING_SPLIT} of {result.subject.dataset.name}",
        iou=result.iou,
        marks={chosen: result.conf, "Ultralytics' own": DEFAULT_CONF},
        bound=question.objective.bound,
    )
