"""What each path of the server does."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import HTMLResponse, Response

from mlflow_yolo.deployment.http.annotate import MEDIA_TYPES, annotated
from mlflow_yolo.deployment.http.answers import answer_json, error_json, to_json, version_json
from mlflow_yolo.deployment.http.asking import ask, ask_all
from mlflow_yolo.deployment.http.bodies import Bodies
from mlflow_yolo.deployment.http.images import check_image
from mlflow_yolo.deployment.http.invocations import Invocation, read_invocation, rows
from mlflow_yolo.deployment.http.limits import Limits, Refused
from mlflow_yolo.deployment.http.measures import MEDIA_TYPE, Measures
from mlflow_yolo.deployment.http.uploads import FORM, Upload, media_type, only, read_uploads
from mlflow_yolo.deployment.http.wishes import read_options, read_query
from mlflow_yolo.deployment.inference.backend import Answer, Backend, Busy, Closed, TooLate
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError

T = TypeVar("T")
_CSP = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob:"
_SHORT_BYTES = 64_000
"""Bodies up to here are taken apart at once, longer ones in a thread: the others' answers would wait for it."""


class Service:
    """What each path of the server does."""

    def __init__(self, backend: Backend, limits: Limits, measures: Measures) -> None:
        self._backend = backend
        self._limits = limits
        self._measures = measures
        self._bodies = Bodies(limits)
        measures.held_bytes.set_function(lambda: self._bodies.held_bytes)

    async def predict(self, request: Request) -> Response:
        """Return what is in one image: its file as the body, or in a form.

        `?annotate=1` answers with the picture and what was found drawn on it.
        """
        options, picture = read_query(request.query_params)
        async with self._bodies.read(request) as body:
            image = only(await self._uploads(request, body))
            header = check_image(image, self._limits)
            answer = await ask(self._backend, image, options, timeout_s=self._limits.timeout_s)
            self._measures.count_answer(answer)
            if not picture:
                return _json(await self._built(answer))
            kind = picture if picture in MEDIA_TYPES else "jpeg" if header.kind == "jpeg" else "png"
            content = await asyncio.to_thread(annotated, image, answer, kind)
            return Response(content, media_type=MEDIA_TYPES[kind])

    async def predict_batch(self, request: Request) -> Response:
        """Return what is in each file of a form, in order; an image that cannot be read has an `error` instead."""
        options = read_options(request.query_params)
        async with self._bodies.read(request) as body:
            uploads = await self._uploads(request, body)
            reasons = [self._reason(upload.image) for upload in uploads]
            good = [upload.image for upload, reason in zip(uploads, reasons, strict=True) if reason is None]
            answers = iter(await ask_all(self._backend, good, options, timeout_s=self._limits.timeout_s))
            outcomes = [next(answers) if reason is None else reason for reason in reasons]
        return _json({"results": [await self._result(*pair) for pair in zip(uploads, outcomes, strict=True)]})

    async def invocations(self, request: Request) -> Response:
        """Return predictions by MLflow's scoring protocol, as `mlflow models serve` does."""
        async with self._bodies.read(request) as body:
            kind = request.headers.get("content-type", "")
            asked: Invocation = await _apart(len(body), read_invocation, kind, body, self._limits)
            for image in asked.images:
                if isinstance(image, bytes):
                    check_image(image, self._limits)
            outcomes = await ask_all(self._backend, asked.images, asked.options, timeout_s=self._limits.timeout_s)
        for outcome in outcomes:
            if isinstance(outcome, MlflowYoloError):
                raise outcome
            self._measures.count_answer(outcome)
        return _json({"predictions": rows([one for one in outcomes if isinstance(one, Answer)])})

    async def health(self) -> Response:
        """Say that the server answers: a model is loaded before it listens."""
        return _json({"status": "ok"})

    async def version(self) -> Response:
        """Return which bytes are served, and why a newer version is not."""
        return _json(version_json(self._backend.status()))

    async def metrics(self) -> Response:
        """Return everything that is counted, in Prometheus' text format."""
        return Response(self._measures.text(), headers={"content-type": MEDIA_TYPE})

    async def page(self) -> Response:
        """Return a page on which to try each path in a browser; it loads nothing from elsewhere."""
        html = files("mlflow_yolo.deployment.http").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(html, headers={"content-security-policy": _CSP, "x-content-type-options": "nosniff"})

    async def _uploads(self, request: Request, body: bytes) -> list[Upload]:
        content_type = request.headers.get("content-type", "")
        size = len(body) if media_type(content_type) == FORM else 0
        return await _apart(size, read_uploads, content_type, body, self._limits)

    def _reason(self, image: bytes) -> Refused | None:
        try:
            check_image(image, self._limits)
        except Refused as error:
            return error
        return None

    async def _result(self, upload: Upload, outcome: Answer | MlflowYoloError) -> dict[str, Any]:
        if isinstance(outcome, Answer):
            self._measures.count_answer(outcome)
            return {"file": upload.name, **await self._built(outcome)}
        return {"file": upload.name, "error": error_json(status_of(outcome), str(outcome))}

    async def _built(self, answer: Answer) -> dict[str, Any]:
        if answer.detections.masks is None:
            return answer_json(answer)
        return await asyncio.to_thread(answer_json, answer)  # outlines take milliseconds


def status_of(error: MlflowYoloError) -> int:
    """Return the HTTP status that an error means; 500 only for what no request can cause."""
    if isinstance(error, Refused):
        return error.status
    known = {ArgumentError: 400, Busy: 429, TooLate: 504, Closed: 503}
    return next((status for kind, status in known.items() if isinstance(error, kind)), 500)


async def error_response(_: Request, error: Exception) -> Response:
    """Return an error of this package as an answer."""
    assert isinstance(error, MlflowYoloError)
    status = status_of(error)
    headers = {}
    wait_s = getattr(error, "retry_after_s", None) or (1 if status == HTTPStatus.SERVICE_UNAVAILABLE else None)
    if wait_s:
        headers["retry-after"] = str(wait_s)
    if getattr(error, "unread", False):
        headers["connection"] = "close"
    return _json(error_json(status, str(error)), status, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(content), status, headers, "application/json")


async def _apart(size: int, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function that takes a body apart returns; in a thread where the body is long."""
    return await asyncio.to_thread(function, *arguments) if size > _SHORT_BYTES else function(*arguments)
