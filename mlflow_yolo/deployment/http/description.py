"""The OpenAPI description of requests and answers whose bodies are read by hand."""

from typing import Any

Json = dict[str, Any]
_NUMBER, _TEXT, _WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}
_BYTES = {"type": "string", "format": "binary"}
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")


def _object(**properties: Any) -> Json:
    return {"type": "object", "properties": properties}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def _parameter(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


_OPTIONS = [
    _parameter("conf", {**_NUMBER, "minimum": 0, "maximum": 1}, "Score that a detection is above [operating point]."),
    _parameter("iou", {**_NUMBER, "minimum": 0, "maximum": 1}, "Largest overlap within a class [operating point]."),
    _parameter("max_det", {**_WHOLE, "minimum": 1}, "Most detections of an image [operating point]."),
]
_ANNOTATE = _parameter(
    "annotate", {**_TEXT, "enum": ["0", "1", "jpeg", "png"]}, "1: the picture with what was found, instead of JSON."
)
_BOX = _list(_NUMBER, minItems=4, maxItems=4, description="x1, y1, x2, y2 in pixels of the image, upright.")
_POLYGON = _list(_list(_NUMBER, minItems=2, maxItems=2), description="Corners x, y in pixels of the image.")
_DETECTION = _object(
    class_id=_WHOLE, name=_TEXT, score=_NUMBER, box=_BOX, polygons=_list(_POLYGON, description="Segmentation only.")
)
_ANSWER = _object(
    model=_object(name=_TEXT, version=_TEXT, alias=_TEXT, sha256=_TEXT),
    width=_WHOLE,
    height=_WHOLE,
    detections=_list(_DETECTION),
    probabilities=_list(_object(class_id=_WHOLE, name=_TEXT, score=_NUMBER), description="Classification only."),
    timings=_object(queue_ms=_NUMBER, compute_ms=_NUMBER, batch=_WHOLE),
)
_ERROR = _object(error_code=_TEXT, message=_TEXT)
_WHY = {
    "400": "The request is malformed; the message says where.",
    "401": "The token is missing or wrong.",
    "408": "The body was not there in time.",
    "413": "Body, image or batch is too large.",
    "415": "The type of the body or the image is not read.",
    "429": "As much waits as may wait; Retry-After says when to come again.",
    "503": "The server is closing.",
    "504": "The answer was not there in time.",
}
_EXAMPLE = {"dataframe_split": {"columns": ["image"], "data": [["<base64 of an image file>"]]}, "params": {"conf": 0.4}}


def _operation(body: Json, answer: Json, parameters: list[Json]) -> Json:
    errors = {
        code: {"description": why, "content": {"application/json": {"schema": _ERROR}}} for code, why in _WHY.items()
    }
    good = {"description": "What was found.", "content": answer}
    return {
        "parameters": parameters,
        "requestBody": {"required": True, "content": body},
        "responses": {"200": good, **errors},
    }


def _json_of(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


PREDICT = _operation(
    {"multipart/form-data": {"schema": _object(file=_BYTES)}} | {kind: {"schema": _BYTES} for kind in _IMAGE_TYPES},
    _json_of(_ANSWER) | {kind: {"schema": _BYTES} for kind in _IMAGE_TYPES[:2]},
    [*_OPTIONS, _ANNOTATE],
)
"""`POST /predict`."""

BATCH = _operation(
    {"multipart/form-data": {"schema": _object(files=_list(_BYTES))}},
    _json_of(_object(results=_list({"oneOf": [_ANSWER, _object(file=_TEXT, error=_ERROR)]}))),
    _OPTIONS,
)
"""`POST /predict/batch`."""

INVOCATIONS = _operation(
    {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}, "text/csv": {"schema": _TEXT}},
    _json_of(_object(predictions=_list({"type": "object"}))),
    [],
)
"""`POST /invocations`."""

VERSION = {
    "responses": {
        "200": {
            "description": "The model that serves; `error` says why a newer version does not.",
            "content": _json_of(
                _object(name=_TEXT, version=_TEXT, alias=_TEXT, sha256=_TEXT, kind=_TEXT, task=_TEXT, error=_TEXT)
            ),
        }
    }
}
"""`GET /version`."""
