import base64
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlflow_yolo.deployment.targets.payload import payload
from mlflow_yolo.exceptions import ArgumentError

PNG = b"\x89PNG\r\n"
TEXT = base64.b64encode(PNG).decode()


def test_a_column_of_bytes_is_a_column_of_base64() -> None:
    frame = pd.DataFrame({"image": [PNG, PNG]}, index=[5, 9])
    assert payload(frame) == {"dataframe_split": {"columns": ["image"], "data": [[TEXT], [TEXT]]}}


def test_a_cell_with_an_array_is_nested_lists() -> None:
    frame = pd.DataFrame({"image": [np.zeros((1, 2, 3), np.uint8)]})
    assert payload(frame)["dataframe_split"]["data"] == [[[[[0, 0, 0], [0, 0, 0]]]]]


@pytest.mark.parametrize("inputs", [PNG, [PNG], (PNG,), np.array([PNG], dtype=object)])
def test_one_image_or_a_list_of_them_is_inputs(inputs: Any) -> None:
    assert payload(inputs) == {"inputs": [TEXT]}


def test_an_array_is_one_image_and_one_of_four_axes_several() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert payload(pixels) == {"inputs": [pixels.tolist()]}
    assert payload(np.stack([pixels, pixels])) == {"inputs": [pixels.tolist()] * 2}


def test_a_body_of_the_protocol_is_passed_on() -> None:
    body = {"inputs": [PNG], "params": {"conf": np.float64(0.25)}}
    assert payload(body) == {"inputs": [TEXT], "params": {"conf": 0.25}}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["image"], "data": [["aGk="], ["eW8="]]}},
        {"dataframe_records": [{"image": "aGk="}, {"image": "eW8="}]},
        {"inputs": ["aGk=", "eW8="]},
        {"instances": ["aGk="]},
    ],
)
def test_a_body_that_mlflows_command_read_as_a_table_is_itself_again(body: dict[str, Any]) -> None:
    frame = pd.read_json(io.StringIO(json.dumps(body)))
    assert payload(frame) == body


def test_a_table_of_images_that_mlflows_command_read_is_sent_as_one() -> None:
    frame = pd.read_json(io.StringIO('[{"image": "aGk="}]'))
    assert payload(frame) == {"dataframe_split": {"columns": ["image"], "data": [["aGk="]]}}


@pytest.mark.parametrize("inputs", [None, "photo.jpg", 7, {}, {"image": "x"}, {"inputs": [], "instances": []}])
def test_what_is_no_image_is_refused(inputs: Any) -> None:
    with pytest.raises(ArgumentError, match="inputs"):
        payload(inputs)


def test_everything_is_json() -> None:
    frame = pd.DataFrame({"image": [PNG], "n": [np.int64(1)]})
    assert json.loads(json.dumps(payload(frame)))["dataframe_split"]["data"] == [[TEXT, 1]]
