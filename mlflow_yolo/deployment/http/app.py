"""The HTTP application: paths, their description, and what every request passes."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlflow_yolo import __version__
from mlflow_yolo.deployment.http import description
from mlflow_yolo.deployment.http.answers import error_json, to_json
from mlflow_yolo.deployment.http.gate import Gate
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.http.measures import Measures
from mlflow_yolo.deployment.http.service import Service, error_response
from mlflow_yolo.deployment.inference.backend import Backend
from mlflow_yolo.exceptions import ArgumentError, MlflowYoloError

_PLAIN: dict[str, Any] = {}


def build_app(backend: Backend, *, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """Return the application that answers for a backend; it neither opens nor closes it.

    Args:
        backend: What computes.
        limits: What one request may ask; None for `Limits()`.
        token: What `Authorization: Bearer` has to say; None for anybody.

    Raises:
        ArgumentError: The token is empty or has characters that no header may have.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ArgumentError("the token is empty or has spaces around it or other than ASCII characters. Use others.")
    app = FastAPI(
        title="mlflow-yolo",
        version=__version__,
        description="A model from the registry, served: the bytes that were measured and promoted.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    measures = Measures(backend.status)
    _add_routes(app, Service(backend, limits or Limits(), measures))
    app.add_exception_handler(MlflowYoloError, error_response)
    app.add_exception_handler(HTTPException, _no_such_path)
    app.add_exception_handler(Exception, _unexpected)
    paths = frozenset(app.openapi()["paths"]) | {"/", "/docs", "/openapi.json"}
    app.add_middleware(Gate, token=token, paths=paths, report=measures.count_request)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    for path, method, endpoint, described in (
        ("/predict", "POST", service.predict, description.PREDICT),
        ("/predict/batch", "POST", service.predict_batch, description.BATCH),
        ("/invocations", "POST", service.invocations, description.INVOCATIONS),
        ("/version", "GET", service.version, description.VERSION),
        ("/health", "GET", service.health, _PLAIN),
        ("/ping", "GET", service.health, _PLAIN),
        ("/metrics", "GET", service.metrics, _PLAIN),
    ):
        app.add_api_route(path, endpoint, methods=[method], openapi_extra=described, response_model=None)
    for path in ("/", "/docs"):
        app.add_api_route(path, service.page, methods=["GET"], include_in_schema=False, response_model=None)


async def _no_such_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is no {request.scope['path'][:100]}. Look at / for what there is.",
        405: f"{request.method[:20]} is not for {request.scope['path'][:100]}. Look at / for what is.",
    }.get(error.status_code, str(error.detail))
    body = to_json(error_json(error.status_code, message))
    return Response(body, error.status_code, dict(error.headers or {}), "application/json")


async def _unexpected(_: Request, error: Exception) -> Response:
    """Answer for a fault of ours; the server's log has it whole."""
    message = f"{type(error).__name__}; the server's log says more."
    return Response(to_json(error_json(500, message)), 500, media_type="application/json")
