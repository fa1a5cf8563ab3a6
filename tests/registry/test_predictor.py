"""What MLflow's `predict` returns, against models whose answers are known by hand."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlflow_yolo.exceptions import ArgumentError, CheckpointError
from mlflow_yolo.registry.predictor import Predictor
from tests.registry.known_models import make_variant


def about(value: float) -> Any:
    """Return what a score is compared with: the model sums 12,288 single-precision numbers."""
    return pytest.approx(value, abs=1e-4)


def grey(value: int, height: int = 64, width: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height), value).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(make_variant(tmp_path_factory.mktemp("known") / "detect"))


def open_model(folder: Path, task: str = "detect", **variant: Any) -> Predictor:
    return Predictor(make_variant(folder / "variant", task, **variant))


def test_one_row_a_detection_by_falling_score_in_pixels_of_the_original_image(detector: Predictor) -> None:
    table = detector.predict(pd.DataFrame({"image": [grey(204)]}))
    assert list(table.columns) == ["image", "class_id", "name", "score", "x1", "y1", "x2", "y2"]
    assert table.to_numpy().tolist() == [
        [0, 0, "cat", about(204 / 255), 22, 27, 42, 37],
        [0, 1, "dog", about(0.6), 12, 28, 20, 36],
    ]


def test_boxes_are_led_back_through_the_letterbox(detector: Predictor) -> None:
    """128 pixels wide and 64 high: scaled by a half, with 16 rows above, whose grey of 114 counts half in the mean."""
    table = detector.predict([grey(255, 64, 128)])
    score = (255 + 114) / 2 / 255
    assert table.loc[0].tolist() == [0, 0, "cat", about(score), 44, 22, 84, 42]


def test_rows_say_which_image_they_are_of_however_many_there_are(detector: Predictor) -> None:
    values = [
        0,
        80,
        120,
        160,
        200,
        240,
        0,
        255,
        90,
        100,
        110,
        0,
        210,
        220,
        230,
        250,
        70,
        180,
        190,
    ]  # two batches, a rest
    table = detector.predict(pd.DataFrame({"image": [grey(value) for value in values]}, index=range(100, 119)))
    cats = table[table["name"] == "cat"]
    expected = {index: value / 255 for index, value in enumerate(values) if value / 255 > 0.25}
    assert dict(zip(cats["image"], cats["score"], strict=True)) == pytest.approx(expected, abs=1e-4)
    assert table.loc[table["name"] == "dog", "image"].tolist() == list(range(len(values)))
    assert table["image"].is_monotonic_increasing


def test_params_replace_the_operating_point_and_none_stands_for_it(tmp_path: Path) -> None:
    model = open_model(tmp_path, operating_point={"conf": 0.7, "iou": 0.5, "max_det": 1})
    image = [grey(204)]
    for params in (None, {}, {"conf": None, "iou": None, "max_det": None}):
        assert model.predict(image, params)["name"].tolist() == ["cat"]
    assert model.predict(image, {"conf": 0.5})["name"].tolist() == ["cat"]  # max_det is 1 still
    assert model.predict(image, {"conf": 0.5, "max_det": 2})["name"].tolist() == ["cat", "dog"]
    assert model.predict(image, {"conf": np.float64(0.9)})["name"].tolist() == []


def test_scores_for_single_classes_hold_until_one_for_all_is_given(tmp_path: Path) -> None:
    model = open_model(tmp_path, operating_point={"conf": 0.1, "per_class": {"dog": 0.9}})
    assert model.predict([grey(204)])["name"].tolist() == ["cat"]
    assert model.predict([grey(204)], {"iou": 0.4})["name"].tolist() == ["cat"]
    assert model.predict([grey(204)], {"conf": 0.1})["name"].tolist() == ["cat", "dog"]


def test_nothing_found_is_a_table_of_the_same_columns_and_types(detector: Predictor) -> None:
    some, none = detector.predict([grey(204)]), detector.predict([grey(0)], {"conf": 0.7})
    assert len(none) == 0
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
    assert [str(kind) for kind in none.dtypes][:2] == ["int64", "int64"]


def test_a_classifier_gives_one_row_a_class_the_surest_first(tmp_path: Path) -> None:
    table = open_model(tmp_path, "classify").predict([grey(51), grey(204)])
    assert list(table.columns) == ["image", "class_id", "name", "score"]
    assert table.to_numpy().tolist() == [
        [0, 1, "dog", about(0.8)],
        [0, 0, "cat", about(0.2)],
        [1, 0, "cat", about(0.8)],
        [1, 1, "dog", about(0.2)],
    ]


def test_a_segmentation_model_gives_polygons_of_plain_numbers(tmp_path: Path) -> None:
    """Its masks fill the boxes; an outline runs through the centres of the outermost pixels: 22 … 41 by 27 … 36."""
    model = open_model(tmp_path, "segment")
    table = model.predict([grey(204)])
    (polygon,) = table.loc[0, "polygons"]
    assert sorted(polygon) == [[22, 27], [22, 36], [41, 27], [41, 36]]
    assert type(polygon[0][0]) is float
    assert [len(table), len(model.predict([grey(0)], {"conf": 0.7}))] == [2, 0]
    assert "polygons" in model.predict([grey(0)], {"conf": 0.7})


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"conf": 2}, "conf=2.0"),
        ({"conf": float("nan")}, "conf=nan"),
        ({"iou": -0.1}, "iou=-0.1"),
        ({"max_det": 0}, "max_det=0"),
        ({"conf": "0.4"}, "conf='0.4'"),
        ({"conf": True}, "conf=True"),
        ({"imgsz": 64}, "imgsz"),
    ],
    ids=str,
)
def test_a_value_out_of_its_range_is_refused_in_one_line(
    detector: Predictor, params: dict[str, Any], named: str
) -> None:
    with pytest.raises(ArgumentError) as error:
        detector.predict([grey(204)], params)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_image_is_named_by_its_row(detector: Predictor) -> None:
    with pytest.raises(ArgumentError, match=r"^row 9: .*cannot be decoded"):
        detector.predict([grey(204)] * 9 + [grey(204)[:30]])


def test_while_mlflow_serves_errors_are_its_own_so_that_its_server_hands_the_sentence_on(
    detector: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow.exceptions import MlflowException

    file = tmp_path / "picture.png"
    file.write_bytes(grey(204))
    assert len(detector.predict([str(file)])) == 2
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    for data, params, named in (([str(file)], None, "row 0: "), ([grey(204)], {"conf": 2}, "conf=2.0")):
        with pytest.raises(MlflowException, match=named) as error:
            detector.predict(data, params)
        assert error.value.get_http_status_code() == 400
        assert "\n" not in error.value.message
    assert len(detector.predict([grey(204)])) == 2


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    from mlflow_yolo.variant import Variant, write_variant

    (tmp_path / "model.onnx").write_bytes(b"no graph")
    write_variant(tmp_path, Variant("fp32-onnx", "model.onnx", "detect", ("a",), (64, 64)))
    with pytest.raises(CheckpointError):
        Predictor(tmp_path)
