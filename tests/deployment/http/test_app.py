import asyncio
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.http.limits import Limits
from mlflow_yolo.deployment.inference.backend import Busy, Closed, Options, TooLate
from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.runtime.detections import Detections
from tests.deployment.serving import StandIn, ask, asking, form


def image(width: int = 64, height: int = 48, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, kind)
    return file.getvalue()


def test_predict_answers_with_the_model_the_size_and_what_was_found() -> None:
    heard = ask(build_app(StandIn()), "/predict", image())
    assert (heard.status, heard.headers["content-type"]) == (200, "application/json")
    assert heard.json == {
        "model": {"name": "cells", "version": "7", "alias": "champion-cpu", "sha256": "ab" * 32},
        "width": 64,
        "height": 48,
        "detections": [
            {"class_id": 1, "name": "WBC", "score": 0.75, "box": [1.0, 2.0, 30.123, 40.0]},
            {"class_id": 0, "name": "RBC", "score": 0.5, "box": [0.0, 0.0, 5.0, 6.0]},
        ],
        "timings": {"queue_ms": 0.25, "compute_ms": 3.5, "batch": 1},
    }


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg", "application/octet-stream", None, "application/x-www-form-urlencoded"]
)
def test_the_bytes_reach_the_backend_as_they_were_sent_whatever_they_are_called(kind: str | None) -> None:
    backend = StandIn()
    assert ask(build_app(backend), "/predict", image(), kind=kind).status == 200
    assert backend.asked == [(image(), Options())]


def test_a_form_and_a_body_in_pieces_are_the_same_image() -> None:
    backend, app = StandIn(), None
    app = build_app(backend)
    body, kind = form(("cells.png", image()))
    assert ask(app, "/predict", body, kind=kind).status == 200
    assert ask(app, "/predict", chunks=[image()[:10], b"", image()[10:]]).status == 200
    assert [asked for asked, _ in backend.asked] == [image()] * 2


def test_the_query_becomes_options() -> None:
    backend = StandIn()
    ask(build_app(backend), "/predict?conf=0.4&iou=0.5&max_det=3", image())
    assert backend.asked[0][1] == Options(conf=0.4, iou=0.5, max_det=3)


@pytest.mark.parametrize(
    "query", ["conf=2", "conf=nan", "iou=x", "max_det=0", "max_det=1.5", "max_det=1e9", "confidence=.4", "annotate=gif"]
)
def test_a_query_that_cannot_be_is_400_and_computes_nothing(query: str) -> None:
    backend = StandIn()
    heard = ask(build_app(backend), f"/predict?{query}", image())
    assert (heard.status, heard.json["error_code"], backend.asked) == (400, "BAD_REQUEST", [])
    assert query.split("=")[0] in heard.json["message"]


@pytest.mark.parametrize(
    ("sent", "asked", "kind"), [("JPEG", "1", "jpeg"), ("PNG", "1", "png"), ("PNG", "jpeg", "jpeg")]
)
def test_annotate_answers_with_the_picture_and_boxes_on_it(sent: str, asked: str, kind: str) -> None:
    heard = ask(build_app(StandIn()), f"/predict?annotate={asked}", image(kind=sent))
    assert heard.headers["content-type"] == f"image/{kind}"
    picture = np.asarray(Image.open(io.BytesIO(heard.body)).convert("RGB")).astype(int)
    assert picture.shape == (48, 64, 3)
    assert np.ptp(picture[30, 1]) > 100  # the left side of the first box is coloured
    assert picture[44, 60].min() > 240  # outside of all boxes it stays white


def test_a_classifier_answers_with_probabilities_the_surest_first() -> None:
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
    found = Detections(*nothing, names=("a", "b", "c"), probabilities=np.array([0.2, 0.7, 0.1]))
    content = ask(build_app(StandIn(found)), "/predict", image()).json
    assert [(row["name"], row["score"]) for row in content["probabilities"]] == [("b", 0.7), ("a", 0.2), ("c", 0.1)]
    assert "detections" not in content
    assert ask(build_app(StandIn(found)), "/predict?annotate=1", image()).status == 200


def test_a_mask_is_answered_as_a_polygon_in_pixels_of_the_image() -> None:
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 16:33, 0:33] = True  # the image of 64x48 lies at rows 8 to 56 of the input
    found = Detections(np.array([[0.0, 8, 33, 25]]), np.ones(1), np.zeros(1, int), names=("a",), masks=masks)
    (row,) = ask(build_app(StandIn(found)), "/predict", image()).json["detections"]
    ((*corners,),) = row["polygons"]
    assert sorted(corners) == [[0.0, 8.0], [0.0, 24.0], [32.0, 8.0], [32.0, 24.0]]
    assert ask(build_app(StandIn(found)), "/predict?annotate=1", image()).status == 200


def test_a_batch_answers_in_order_and_says_of_each_image_what_is_wrong_with_it() -> None:
    backend = StandIn()
    files = [("a.png", image()), ("b.png", image()[:40]), ("c.txt", b"no image"), ("d.png", image(9, 9))]
    body, kind = form(*files, field_name="files")
    heard = ask(build_app(backend, limits=Limits(max_pixels=64 * 48)), "/predict/batch?conf=.3", body, kind=kind)
    first, second, third, fourth = heard.json["results"]
    assert heard.status == 200
    assert (first["file"], first["width"], fourth["file"], fourth["width"]) == ("a.png", 64, "d.png", 9)
    assert {second["error"]["error_code"], third["error"]["error_code"]} == {"BAD_REQUEST"}
    assert [options.conf for _, options in backend.asked] == [0.3] * 3  # what is no image is not even asked


def test_a_batch_longer_than_the_line_waits_for_its_own_images() -> None:
    backend = StandIn(waits=True, errors={2: Busy("full", retry_after_s=3), 3: Busy("full", retry_after_s=3)})
    body, kind = form(*[("x.png", image())] * 3, field_name="files")

    async def run() -> int:
        task = asyncio.create_task(asking(build_app(backend), "/predict/batch", body, kind=kind))
        for _ in range(100):
            await asyncio.sleep(0.005)
            if backend.waiting and not backend.waiting[0].done():
                backend.waiting.pop(0).set_result(backend.answer())
        heard = await task
        return sum("error" not in result for result in heard.json["results"])

    assert asyncio.run(run()) == 3


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ArgumentError("cannot be decoded"), 400),
        (Busy("full", retry_after_s=7), 429),
        (Closed("closing"), 503),
        (TooLate("late"), 504),
        (CheckpointError("damaged"), 500),
        (RuntimeError("secret"), 500),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/invocations"])
def test_each_failure_of_the_backend_has_its_status(error: Exception, status: int, path: str) -> None:
    body, kind = form(("a.png", image()))
    if path == "/invocations":
        body, kind = json.dumps({"inputs": [[[[0, 0, 0]]]]}).encode(), "application/json"
    app = build_app(StandIn(errors=dict.fromkeys(range(9), error)))
    if isinstance(error, RuntimeError) and status == 500:
        logging.disable(logging.CRITICAL)
        with pytest.raises(RuntimeError):  # starlette answers, then hands it on to the server's log
            ask(app, path, body, kind=kind)
        logging.disable(logging.NOTSET)
        return
    heard = ask(app, path, body, kind=kind)
    if path == "/predict/batch" and not isinstance(error, Busy):
        assert heard.json["results"][0]["error"]["message"] == str(error)
        return
    assert (heard.status, heard.json["message"]) == (status, str(error))
    assert heard.headers.get("retry-after") == {429: "7", 503: "1"}.get(status)


def test_an_answer_that_does_not_come_is_504_and_given_up() -> None:
    backend = StandIn(waits=True)
    heard = ask(build_app(backend, limits=Limits(timeout_s=0.05)), "/predict", image())
    assert heard.status == 504
    assert backend.waiting[0].cancelled()


@pytest.mark.parametrize(
    "given", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}, {"authorization": "é"}]
)
def test_without_the_token_nothing_is_computed_or_told(given: dict[str, str]) -> None:
    backend = StandIn()
    app = build_app(backend, token="s3cret")
    for path, body in (("/predict", image()), ("/version", None), ("/metrics", None), ("/nowhere", None)):
        heard = ask(app, path, body, headers=given)
        assert (heard.status, heard.headers["www-authenticate"]) == (401, "Bearer")
    assert backend.asked == []
    assert ask(app, "/health", headers=given).status == ask(app, "/", headers=given).status == 200


def test_with_the_token_everything_is_answered() -> None:
    app = build_app(StandIn(), token="s3cret")
    assert ask(app, "/predict", image(), headers={"Authorization": "Bearer s3cret"}).status == 200


@pytest.mark.parametrize("token", ["", " x", "ключ", "a\nb"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(ArgumentError, match="token"):
        build_app(StandIn(), token=token)


def test_unknown_paths_and_wrong_methods_are_told_apart() -> None:
    app = build_app(StandIn())
    assert ask(app, "/predict/", image()).status == ask(app, "/../etc/passwd").status == 404
    wrong = ask(app, "/predict")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


def test_version_tells_what_is_served_and_why_a_newer_version_is_not() -> None:
    content = ask(build_app(StandIn(error="cells version 8 is not served: damaged")), "/version").json
    assert (content["version"], content["alias"], content["sha256"]) == ("7", "champion-cpu", "ab" * 32)
    assert content["error"] == "cells version 8 is not served: damaged"


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_probes_are_answered(path: str) -> None:
    assert ask(build_app(StandIn()), path).status == 200


def test_every_path_is_described_and_says_what_it_takes_and_answers() -> None:
    api = ask(build_app(StandIn()), "/openapi.json").json
    assert set(api["paths"]) == {
        "/predict", "/predict/batch", "/invocations", "/version", "/health", "/ping", "/metrics"
    }  # fmt: skip
    predict = api["paths"]["/predict"]["post"]
    assert {"image/jpeg", "image/png", "multipart/form-data"} <= set(predict["requestBody"]["content"])
    assert {parameter["name"] for parameter in predict["parameters"]} == {"conf", "iou", "max_det", "annotate"}
    assert {"200", "400", "401", "413", "415", "429", "504"} <= set(predict["responses"])


def test_the_page_loads_nothing_from_elsewhere_and_works_below_another_path() -> None:
    app = build_app(StandIn())
    for path in ("/", "/docs"):
        heard = ask(app, path, root="/cells")
        assert heard.status == 200
        assert b"http://" not in heard.body
        assert b"https://" not in heard.body
        assert "default-src 'none'" in heard.headers["content-security-policy"]
    assert ask(app, "/predict", image(), root="/cells").status == 200
    assert ask(build_app(StandIn(), token="x"), "/health", root="/cells").status == 200


def test_metrics_count_by_path_and_status_and_never_by_what_a_client_invents() -> None:
    backend = StandIn()
    app = build_app(backend)
    ask(app, "/predict", image())
    ask(app, "/predict", b"none")
    ask(app, "/invented-by-a-client")
    lines = ask(app, "/metrics").body.decode().splitlines()
    assert 'mlflow_yolo_requests_total{code="200",path="/predict"} 1.0' in lines
    assert 'mlflow_yolo_requests_total{code="400",path="/predict"} 1.0' in lines
    assert 'mlflow_yolo_requests_total{code="404",path="other"} 1.0' in lines
    assert "mlflow_yolo_batch_size_sum 1.0" in lines
    assert "mlflow_yolo_held_bytes 0.0" in lines
    assert not any("invented" in line for line in lines)
