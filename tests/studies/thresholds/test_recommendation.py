"""What is recommended and said, of detections made by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlflow_yolo.datasets.dataset import Dataset
from mlflow_yolo.detection.match_arrays import MatchArrays
from mlflow_yolo.detection.objective import parse_objective
from mlflow_yolo.studies.thresholds.artifacts import write_files
from mlflow_yolo.studies.thresholds.question import Question
from mlflow_yolo.studies.thresholds.recommendation import CLASSES, COMMON, DEFAULT, recommend
from mlflow_yolo.studies.thresholds.report import note, sentences, terminal_text
from mlflow_yolo.studies.thresholds.result import Result, metrics, operating_point, params
from mlflow_yolo.studies.thresholds.subject import Subject
from tests.detection.matches_by_hand import arrays_of, random_arrays

IMAGES = 40


def unlike(n_images: int = IMAGES) -> MatchArrays:
    """Class 0 is right above 0.5 and wrong at 0.4; class 1 right at 0.2 and wrong at 0.1; one object each an image."""
    detections = [(i, 0, 0.6, True) for i in range(n_images)] + [(i, 0, 0.4, False) for i in range(n_images)]
    detections += [(i, 1, 0.2, True) for i in range(n_images)] + [(i, 1, 0.1, False) for i in range(n_images)]
    return arrays_of(detections, [(i, c) for i in range(n_images) for c in (0, 1)], n_images=n_images, n_classes=2)


def alike(n_images: int = IMAGES) -> MatchArrays:
    """Both classes are right at 0.6 and wrong at 0.4."""
    detections = [(i, c, s, s > 0.5) for i in range(n_images) for c in (0, 1) for s in (0.6, 0.4)]
    return arrays_of(detections, [(i, c) for i in range(n_images) for c in (0, 1)], n_images=n_images, n_classes=2)


def result_of(
    arrays: MatchArrays, *, held_out: MatchArrays | None = None, nms: str = "by class", limit: int = 300, **asked: Any
) -> Result:
    objective = parse_objective(asked.pop("objective", "f1"))
    question = Question((0.05, 0.5, 0.95), (0.6, 0.7), objective, **asked)
    every = {0.6: arrays, 0.7: arrays}
    found = recommend(
        every,
        question,
        masks=False,
        limit=limit,
        held_out=None if held_out is None else lambda ious: dict.fromkeys(ious, held_out),
    )
    names = tuple(f"class {i}" for i in range(arrays.n_classes))
    data = Dataset("cells", Path("data.yaml"), Path(), "detect", names, {}, "0123456789abcdef")
    reporting = "val" if held_out is None else "test"
    subject = Subject("best.pt", False, "best.pt", "ab" * 32, "detect", names, data, reporting, 64, 4, "cpu")
    n_images = arrays.n_images, (held_out or arrays).n_images
    return Result(subject, question, found, False, limit, nms, n_images)


def test_classes_that_differ_get_thresholds_of_their_own() -> None:
    result = result_of(unlike())
    assert result.found.ships_per_class
    point = operating_point(result)
    assert point["per_class"] == {"class 0": 0.5, "class 1": 0.15}
    assert result.found.by_class.value == 1
    assert result.found.cross is not None
    assert result.found.cross[CLASSES].measured["f1"].value == 1
    # One threshold for both: above 0.1 class 0 has as many wrong ones as right ones, F1 2/3; class 1 is whole.
    assert result.found.choice.best.value == pytest.approx((2 / 3 + 1) / 2)
    assert result.found.cross[COMMON].measured["f1"].value == pytest.approx((2 / 3 + 1) / 2)
    # Ultralytics' own 0.25 finds class 0 with its wrong ones, and nothing of class 1.
    assert result.found.cross[DEFAULT].measured["f1"].value == pytest.approx((2 / 3 + 0) / 2)
    text = "\n".join(sentences(result))
    assert "class 0 0.5, class 1 0.15" in text
    assert "it is recommended" in text


def test_classes_that_do_not_differ_share_one_threshold() -> None:
    result = result_of(alike())
    assert not result.found.ships_per_class
    assert operating_point(result)["per_class"] == {}
    assert (operating_point(result)["conf"], operating_point(result)["iou"]) == (0.5, 0.7)
    assert "not shown to be better" in "\n".join(sentences(result))


def test_the_user_decides_about_thresholds_for_classes_where_asked() -> None:
    assert operating_point(result_of(alike(), per_class="true"))["per_class"] == {"class 0": 0.5, "class 1": 0.5}
    assert operating_point(result_of(unlike(), per_class="false"))["per_class"] == {}
    assert "as asked" in "\n".join(sentences(result_of(unlike(), per_class="false")))


def test_what_is_reported_comes_from_the_images_held_out() -> None:
    # On test class 0 is always wrong: whatever was chosen on val is worth 1/2 there.
    there = arrays_of(
        [(i, 0, 0.6, False) for i in range(10)] + [(i, 1, 0.6, True) for i in range(10)],
        [(i, c) for i in range(10) for c in (0, 1)],
        n_images=10,
        n_classes=2,
    )
    result = result_of(alike(), held_out=there)
    assert result.found.choice.best.value == pytest.approx(1)
    assert metrics(result)["op/f1"] == 0.5
    assert (metrics(result)["op/f1_low"], metrics(result)["op/f1_high"]) == (0.5, 0.5)
    assert operating_point(result)["measured_on"] == "test"
    assert "On test (10 images" in "\n".join(sentences(result))


def test_cross_fitted_numbers_say_so() -> None:
    result = result_of(alike())
    assert operating_point(result)["measured_on"] == "val, cross-fitted"
    assert "On val, cross-fitted (40 images" in "\n".join(sentences(result))


@pytest.mark.parametrize(("word", "better"), [("f1", "better than Ultralytics"), ("cost", "better than Ultralytics")])
def test_better_is_said_where_it_is_shown(word: str, better: str) -> None:
    assert better in "\n".join(sentences(result_of(alike(), objective=word)))


def test_no_difference_is_said_where_none_is_shown() -> None:
    # Nothing lies between 0.25 and the threshold chosen, so both points are the same.
    detections = [(i, 0, 0.9, i % 3 > 0) for i in range(IMAGES)]
    arrays = arrays_of(detections, [(i, 0) for i in range(IMAGES)], n_images=IMAGES, n_classes=1)
    text = "\n".join(sentences(result_of(arrays)))
    assert "No difference" in text
    assert "better" not in text
    assert "each class" not in text, "there is only one"


def test_a_bound_that_is_out_of_reach_is_said() -> None:
    detections = [(i, 0, 0.9, i % 2 == 0) for i in range(IMAGES)]
    arrays = arrays_of(detections, [(i, 0) for i in range(IMAGES)], n_images=IMAGES, n_classes=1)
    text = sentences(result_of(arrays, objective="recall@0.9"))[0]
    assert text.startswith("No threshold reaches precision 0.9 on val (40 images)")
    assert "precision 0.500" in text


def test_a_bound_that_other_images_do_not_keep_is_said() -> None:
    detections = [(i, 0, 0.9, i % 2 == 0) for i in range(IMAGES)]
    there = arrays_of(detections, [(i, 0) for i in range(IMAGES)], n_images=IMAGES, n_classes=1)
    here = arrays_of([(i, 0, 0.9, True) for i in range(9)], [(i, 0) for i in range(9)], n_images=9, n_classes=1)
    assert "below the 0.9 asked for" in sentences(result_of(here, held_out=there, objective="recall@0.9"))[1]


def test_map_is_never_the_reason_and_the_text_says_why() -> None:
    assert any("mAP" in line and "never used" in line for line in sentences(result_of(alike())))


def test_an_overlap_without_effect_is_said() -> None:
    assert any("IoU has no effect" in line for line in sentences(result_of(alike(), nms="none")))


def test_an_end_of_the_grid_is_said() -> None:
    assert any("IoU 0.7 is the end" in line for line in sentences(result_of(alike())))
    steep = arrays_of([(i, 0, 0.99, True) for i in range(9)], [(i, 0) for i in range(9)], n_images=9, n_classes=1)
    assert not any("Conf" in line and "end" in line for line in sentences(result_of(steep)))


def test_images_that_max_det_cut_off_are_said_where_classes_have_their_own_thresholds() -> None:
    assert any("40 images have max_det=4" in line for line in sentences(result_of(unlike(), limit=4)))
    assert not any("max_det" in line for line in sentences(result_of(unlike(), limit=5)))


def test_nothing_detected_is_said_and_nothing_fails(tmp_path: Path) -> None:
    empty = arrays_of([], [(0, 0), (1, 1)], n_images=3, n_classes=2)
    result = result_of(empty)
    assert any("Nothing was detected" in line for line in sentences(result))
    write_files(result, empty, tmp_path)
    assert metrics(result)["op/f1"] == 0
    assert all(np.isfinite(value) for value in metrics(result).values())


def test_one_image_is_said_to_tell_nothing_of_others() -> None:
    result = result_of(alike(1))
    assert result.found.reported is None
    assert "one image" in "\n".join(sentences(result))
    assert set(metrics(result)) == {"op/conf", "op/iou"}
    assert note(result)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("word", ["f1", "fbeta", "cost", "recall@0.8", "precision@0.5"])
def test_whatever_was_detected_everything_is_written(seed: int, word: str, tmp_path: Path) -> None:
    n_classes = [1, 2, 5, 30][seed]
    arrays = random_arrays(np.random.default_rng(seed), n_images=6, n_classes=n_classes, decimals=[None, 1][seed % 2])
    result = result_of(arrays, objective=word)
    assert terminal_text(result)
    assert note(result)
    if word == "f1":
        folder = write_files(result, arrays, tmp_path)
        written = {file.name for file in folder.iterdir()}
        assert written == {
            "table.csv", "per_class.csv", "summary.txt", "operating_point.json", "surface.png", "surface.html",
            "curves.png",
        }  # fmt: skip
        assert len((folder / "table.csv").read_text().splitlines()) == 1 + 2 * 3
        assert len((folder / "per_class.csv").read_text().splitlines()) == 1 + n_classes
    point = json.loads(json.dumps(operating_point(result)))
    assert 0.05 <= point["conf"] <= 0.95
    assert all(0.05 <= conf <= 0.95 for conf in point["per_class"].values())


def test_the_file_for_serving_says_where_it_comes_from() -> None:
    result = result_of(alike(), objective="cost")
    point = operating_point(result)
    expected = {
        "max_det": 300,
        "nms": "by class",
        "objective": "cost",
        "c_fp": 1.0,
        "c_fn": 1.0,
        "judged_by": "boxes",
        "match_iou": 0.5,
        "split": "val",
        "dataset": "0123456789abcdef",
        "model_sha256": "ab" * 32,
        "imgsz": 64,
    }
    assert {name: point[name] for name in expected} == expected
    assert point["ultralytics_version"].startswith("8.")
    assert params(result) == {"op/conf": 0.5, "op/iou": 0.7, "op/max_det": 300, "op/per_class": False}
    beta = replace(result, question=replace(result.question, objective=parse_objective("fbeta")))
    assert operating_point(beta)["beta"] == 2
