import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.deployment.http.app import build_app
from mlflow_yolo.deployment.http.invocations import read_invocation
from mlflow_yolo.deployment.http.limits import Limits, Refused
from mlflow_yolo.deployment.inference.backend import Options
from tests.deployment.http.test_app import image
from tests.deployment.serving import StandIn, ask

TEXT = base64.b64encode(image()).decode()
PIXELS = [[[1, 2, 3], [4, 5, 6]]]


def read(content: Any, kind: str = "application/json", **limits: Any) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_invocation(kind, body, Limits(**limits))


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": ["image"], "data": [[TEXT], [TEXT]]}},
        {"dataframe_split": {"columns": ["id", "image"], "index": [5, 6], "data": [[1, TEXT], [2, TEXT]]}},
        {"dataframe_split": {"data": [[TEXT], [TEXT]]}},
        {"dataframe_records": [{"image": TEXT}, {"x": TEXT}]},
        {"instances": [TEXT, f"data:image/png;base64,{TEXT}"]},
        {"instances": [{"b64": TEXT}, {"image": {"b64": TEXT}}]},
        {"inputs": {"image": [TEXT, TEXT[:40] + "\n" + TEXT[40:]]}},
        {"inputs": [[TEXT], [TEXT]][0] * 2},
    ],
)
def test_every_form_of_the_protocol_gives_the_image_files(content: dict[str, Any]) -> None:
    assert list(read(content).images) == [image(), image()]


def test_a_csv_gives_the_image_files() -> None:
    long = base64.b64encode(image() + bytes(200_000)).decode()  # Python's reader stops at 131,072 characters by itself
    assert list(read(f"id,image\n1,{TEXT}\n2,{long}\n".encode(), "text/csv").images) == [
        image(),
        image() + bytes(200_000),
    ]


@pytest.mark.parametrize(
    ("name", "value", "n"), [("inputs", PIXELS, 1), ("instances", [PIXELS] * 2, 2), ("inputs", [PIXELS], 1)]
)
def test_nested_lists_are_pixels(name: str, value: Any, n: int) -> None:
    images = read({name: value}).images
    assert len(images) == n
    assert np.array_equal(images[0], np.array(PIXELS, np.uint8))
    assert images[0].dtype == np.uint8


def test_params_become_options_and_null_is_the_operating_points() -> None:
    asked = read({"inputs": TEXT, "params": {"conf": 0.4, "iou": None, "max_det": 7}})
    assert asked.options == Options(conf=0.4, max_det=7)


def test_the_answer_has_a_row_for_each_detection_as_the_models_own_pyfunc_makes_them() -> None:
    content = ask(
        build_app(StandIn()), "/invocations", json.dumps({"inputs": [TEXT] * 2}).encode(), kind="application/json"
    ).json
    assert [(row["image"], row["name"]) for row in content["predictions"]] == [
        (0, "WBC"),
        (0, "RBC"),
        (1, "WBC"),
        (1, "RBC"),
    ]
    assert content["predictions"][0] == {
        "image": 0, "class_id": 1, "name": "WBC", "score": 0.75, "x1": 1.0, "y1": 2.0, "x2": 30.12345, "y2": 40.0
    }  # fmt: skip


def test_no_text_is_taken_for_a_path_or_an_address(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(image())
    for text in (str(file), f"file://{file}", "http://127.0.0.1:1/x.png", "photo.png", f"s3:/{file}"):
        for content in ({"inputs": [text]}, {"dataframe_records": [{"image": text}]}):
            backend = StandIn()
            heard = ask(build_app(backend), "/invocations", json.dumps(content).encode(), kind="application/json")
            assert (heard.status, backend.asked) == (400, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        [],
        {},
        {"image": TEXT},
        {"inputs": TEXT, "instances": [TEXT]},
        {"inputs": []},
        {"inputs": None},
        {"inputs": 5},
        {"inputs": {}},
        {"inputs": [[1, 2], [3]]},
        {"inputs": [[[[1, 2, 300]]]]},
        {"inputs": [[[[0.5, 1, 2]]]]},
        {"inputs": [[[["a", "b", "c"]]]]},
        {"inputs": [[[[10**40, 0, 0]]]]},
        {"dataframe_split": []},
        {"dataframe_split": {"data": TEXT}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[TEXT, TEXT]]}},
        {"dataframe_split": {"columns": ["a", "image"], "data": [[TEXT]]}},
        {"dataframe_split": {"columns": [{}], "data": [[]]}},
        {"dataframe_records": {"image": TEXT}},
        {"dataframe_records": [{"a": TEXT, "b": TEXT}]},
        {"inputs": TEXT, "params": [1]},
        {"inputs": TEXT, "params": {"conf": "high"}},
        {"inputs": TEXT, "params": {"conf": True}},
        {"inputs": TEXT, "params": {"conf": [1]}},
        {"inputs": TEXT, "params": {"max_det": 1.5}},
        {"inputs": TEXT, "params": {"max_det": 10**400}},
        {"inputs": TEXT, "params": {"imgsz": 64}},
    ],
)
def test_what_is_not_of_the_protocol_is_400_with_the_reason_in_one_line(content: Any) -> None:
    with pytest.raises(Refused) as refusal:
        read(content)
    assert refusal.value.status == 400
    assert 10 < len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "body", [b"", b"image\n", b"a,b\n1,2\n", b"a,image\n1\n", b"\xff\xff", b"image\n\x00\n", b"image\n/etc/passwd\n"]
)
def test_a_csv_that_has_no_images_is_400(body: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        read(body, "text/csv")
    assert refusal.value.status == 400


@pytest.mark.parametrize("kind", ["application/vnd.apache.parquet", "text/plain", ""])
def test_another_type_of_body_is_415(kind: str) -> None:
    with pytest.raises(Refused) as refusal:
        read(b"PAR1", kind)
    assert refusal.value.status == 415


def test_more_images_than_allowed_are_413() -> None:
    with pytest.raises(Refused) as refusal:
        read({"inputs": [TEXT] * 3}, max_batch=2)
    assert refusal.value.status == 413
    with pytest.raises(Refused) as refusal:
        read({"inputs": [PIXELS]}, max_pixels=1)
    assert refusal.value.status == 413
