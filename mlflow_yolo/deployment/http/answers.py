"""Answers as JSON: plain numbers, boxes in pixels of the image that was sent."""

import json
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import numpy as np

from mlflow_yolo.deployment.inference.backend import Answer, Loaded, Status
from mlflow_yolo.runtime.outlines import mask_outlines

_PIXEL_DIGITS = 3
_SCORE_DIGITS = 6
Json = dict[str, Any]


def to_json(value: Any) -> bytes:
    """Return a value as compact JSON, UTF-8; half a surrogate pair, which a client may send, becomes a `?`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def answer_json(answer: Answer) -> Json:
    """Return what `/predict` answers.

    Boxes are x1, y1, x2, y2 in pixels of the image, upright, to a thousandth; scores to a millionth. A segmentation
    model's detections have `polygons`: outlines of x, y corners, several where the object is in parts. A classifier has
    `probabilities` by falling value instead of detections.
    """
    found = answer.detections
    content: Json = {"model": _named(answer.model), "width": answer.width, "height": answer.height}
    if found.probabilities is not None:
        content["probabilities"] = _classes(found.probabilities, found.names)
    else:
        content["detections"] = _objects(answer)
    content["timings"] = {
        "queue_ms": round(answer.queue_ms, 3),
        "compute_ms": round(answer.compute_ms, 3),
        "batch": answer.batch,
    }
    return content


def error_json(status: int, message: str) -> Json:
    """Return an error with the names that MLflow's servers and clients use."""
    return {"error_code": HTTPStatus(status).name, "message": message}


def version_json(status: Status) -> Json:
    """Return what `/version` answers: which bytes are served, and why a newer version is not."""
    model = status.serving
    return {
        **_named(model),
        "kind": model.kind,
        "task": model.task,
        "imgsz": list(model.imgsz),
        "names": list(model.names),
        "loaded_at": model.loaded_at,
        "error": status.error,
    }


def _objects(answer: Answer) -> list[Json]:
    found = answer.detections
    boxes = np.round(found.boxes, _PIXEL_DIGITS).tolist()
    scores = np.round(found.scores, _SCORE_DIGITS).tolist()
    objects = [
        {"class_id": index, "name": found.names[index], "score": score, "box": box}
        for index, score, box in zip(found.classes.tolist(), scores, boxes, strict=True)
    ]
    if found.masks is None:
        return objects
    outlines = mask_outlines(found.masks, (answer.height, answer.width))
    return [
        row | {"polygons": [np.round(ring, _PIXEL_DIGITS).tolist() for ring in rings]}
        for row, rings in zip(objects, outlines, strict=True)
    ]


def _classes(probabilities: Any, names: Sequence[str]) -> list[Json]:
    order = np.argsort(-probabilities, kind="stable").tolist()
    values = np.round(probabilities, _SCORE_DIGITS).tolist()
    return [{"class_id": index, "name": names[index], "score": values[index]} for index in order]


@lru_cache(maxsize=4)
def _named(model: Loaded) -> Json:
    return {"name": model.name, "version": model.version, "alias": model.alias, "sha256": model.sha256}
