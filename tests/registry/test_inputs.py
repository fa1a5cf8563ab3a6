"""Images out of whatever MLflow hands over, and what is never opened."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.registry.inputs import cells_of, is_served, read_cell

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
"""Height, width, BGR."""


def png(pixels: Any = PIXELS) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., ::-1]).save(stream, "PNG")
    return stream.getvalue()


def text(data: bytes = b"") -> str:
    return base64.b64encode(data or png()).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "picture.png").write_bytes(png())
    return tmp_path / "picture.png"


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"image": ["a", "b"]}),
        pd.DataFrame({"id": [1, 2], "image": ["a", "b"]}, index=["x", "y"]),
        pd.DataFrame({"picture": ["a", "b"]}),
        pd.Series(["a", "b"]),
        {"image": ["a", "b"]},
        {"image": np.array(["a", "b"])},
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"], dtype=object),
    ],
    ids=lambda data: type(data).__name__,
)
def test_a_table_a_list_and_an_array_of_objects_hold_one_image_a_row(data: Any) -> None:
    assert cells_of(data) == ["a", "b"]


@pytest.mark.parametrize(
    "one", ["a", b"a", Path("a"), PIXELS, PIXELS[..., 0], PIXELS.tolist(), Image.new("RGB", (2, 2))]
)
def test_one_image_may_come_alone(one: Any) -> None:
    (cell,) = cells_of(one)
    assert cell is one


def test_an_array_of_four_dimensions_is_a_batch() -> None:
    first, second = cells_of(np.stack([PIXELS, PIXELS[::-1]]))
    assert np.array_equal(first, PIXELS)
    assert np.array_equal(second, PIXELS[::-1])


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (pd.DataFrame({"image": []}), "empty"),
        (pd.DataFrame(), "0 columns"),
        ([], "empty"),
        (pd.DataFrame({"a": [1], "b": [2]}), "2 columns ('a', 'b')"),
        (pd.DataFrame([[1, 2]], columns=["image", "image"]), "several columns called 'image'"),
        ({"picture": ["a"]}, "'picture' and no 'image'"),
    ],
)
def test_what_holds_no_image_is_refused_in_one_line(data: Any, named: str) -> None:
    with pytest.raises(ArgumentError) as error:
        cells_of(data)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize(
    "cell",
    [
        png(),
        bytearray(png()),
        np.bytes_(png()),
        text(),
        np.str_(text()),
        text().encode(),
        "\n".join(text()[start : start + 76] for start in range(0, len(text()), 76)),
        f"data:image/png;base64,{text()}",
        PIXELS,
        PIXELS.astype(np.int64),
        PIXELS.tolist(),
        Image.fromarray(PIXELS[..., ::-1]),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_every_form_of_an_image_gives_the_same_pixels(cell: Any, served: bool) -> None:
    assert np.array_equal(read_cell(cell, served=served), PIXELS)


def test_arrays_out_of_a_parquet_file_are_pixels() -> None:
    """A column of nested lists comes back as arrays of objects within arrays of objects."""
    nested = np.empty(2, dtype=object)
    nested[:] = [np.array([[1, 2, 3], [4, 5, 6]], dtype=object), np.array([[7, 8, 9], [0, 0, 0]], dtype=object)]
    assert read_cell(nested, served=True).tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, 0]]]


def test_a_text_pixmap_is_an_image_though_its_bytes_could_be_base64() -> None:
    assert read_cell(b"P3\n1 1\n255\n30 2 10\n", served=False).tolist() == [[[10, 2, 30]]]


def test_a_path_is_opened_for_this_process_own_user(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(read_cell(file, served=False), PIXELS)
    assert np.array_equal(read_cell(str(file), served=False), PIXELS)
    monkeypatch.chdir(file.parent)
    assert np.array_equal(read_cell("picture.png", served=False), PIXELS)


def test_no_path_is_opened_for_a_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    as_base64 = Path("abcdefgh")  # a name that is base64, too: it is decoded, not opened
    as_base64.write_bytes(png())
    for cell in (file, str(file), "picture.png", str(file).encode(), str(as_base64), f"file://{file}", "~/picture.png"):
        with pytest.raises(ArgumentError) as error:
            read_cell(cell, served=True)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize(
    "address", ["http://host/a.jpg", "https://host/a.jpg", "s3://bucket/a.jpg", "file:/etc/passwd"]
)
def test_no_address_is_ever_opened(address: str, served: bool) -> None:
    with pytest.raises(ArgumentError, match="is an address; none is ever opened"):
        read_cell(address, served=served)


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        (None, "nothing is no image"),
        (float("nan"), "nothing is no image"),
        (7, "int is no image"),
        ({"b64": "x"}, "dict is no image"),
        (b"", "0 bytes"),
        (png()[:20], "cannot be decoded"),
        (text(b"no picture, but long enough to be taken for base64 rather than for a path"), "cannot be decoded"),
        ("missing.jpg", "missing.jpg cannot be read"),
        ("x.y" * 2000, "neither a path nor base64"),
        ("a\0b", "neither a path nor base64"),
        ([[1, 2], [3]], "unequal lengths"),
        ([[[300, 0, 0]]], "type int64"),
        ([[[-1, 0, 0]]], "type int64"),
        ([[[0.5, 0, 0]]], "type float64"),
        (np.zeros((2, 2, 3), np.float32), "type float32"),
        (np.zeros((0, 2, 3), np.uint8), "shape (0, 2, 3)"),
        (np.zeros((2, 2, 5), np.uint8), "5 channels"),
        ([], "shape (0,)"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_in_one_line(cell: Any, named: str) -> None:
    with pytest.raises(ArgumentError) as error:
        read_cell(cell, served=False)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_model_of_one_channel_gets_one() -> None:
    grey = np.repeat(PIXELS[..., :1], 3, axis=2)
    assert np.array_equal(read_cell(png(grey), served=False, channels=1), PIXELS[..., :1])


def test_mlflow_says_in_the_environment_that_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT as IN_SERVING

    assert not is_served()
    for word, served in (("true", True), ("1", True), ("false", False)):
        monkeypatch.setenv(IN_SERVING.name, word)
        assert is_served() is served


@pytest.mark.parametrize("server", ["mlflow.pyfunc.scoring_server.app", "mlflow.pyfunc.stdin_server", "mlserver"])
def test_other_servers_are_known_by_their_modules(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, server, ModuleType(server))
    assert is_served()
