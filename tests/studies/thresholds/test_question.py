import pytest

from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.studies.thresholds.inside import nearest, overlaps
from mlflow_yolo.studies.thresholds.question import Question, parse_grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("0.1:0.35:0.1", (0.1, 0.2, 0.3)),
        ("0.4:0.4:0.1", (0.4,)),
        ("0.5,0.25,0.5", (0.25, 0.5)),
        ("0.7", (0.7,)),
    ],
)
def test_grids_are_read(text: str, values: tuple[float, ...]) -> None:
    assert parse_grid(text, "conf") == values


def test_the_default_grid_has_the_209_points_of_the_issue() -> None:
    confs, ious = parse_grid("0.05:0.95:0.05", "conf"), parse_grid("0.3:0.8:0.05", "iou")
    assert (len(confs), len(ious), len(confs) * len(ious)) == (19, 11, 209)
    assert (confs[0], confs[-1], ious[0], ious[-1]) == (0.05, 0.95, 0.3, 0.8)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "names no value"),
        (",", "names no value"),
        ("0.5:0.1:0.1", "0.5 is above 0.1"),
        ("0.1:0.5:0", "step is 0"),
        ("0.1:0.5:-0.1", "not in 0 to 1"),
        ("0.1:0.5", "no range"),
        ("0.1:0.5:0.1:0.1", "no range"),
        ("0.1:high:0.1", "'high'"),
        ("nan", "not in 0 to 1"),
        ("0.5,1.5", "1.5"),
        ("0.1:0.9:0.0001", "8001 values"),
        ("0.1 0.2", "'0.1 0.2'"),
    ],
)
def test_what_is_no_grid_is_named(text: str, named: str) -> None:
    with pytest.raises(ArgumentError) as error:
        parse_grid(text, "conf")
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"confs": (0.0, 0.5)}, "conf=0"),
        ({"max_det": 0}, "max_det=0"),
        ({"match_iou": 0.52}, "match_iou=0.52"),
        ({"match_iou": 1.0}, "match_iou=1"),
        ({"match_iou": float("nan")}, "match_iou=nan"),
        ({"judge": "mask"}, "judge=mask"),
        ({"per_class": "yes"}, "per_class=yes"),
    ],
)
def test_values_that_cannot_be_used_are_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        Question(**{"confs": (0.1, 0.5), "ious": (0.7,), **given})


def test_the_level_is_the_place_among_the_ten_thresholds() -> None:
    found = [Question((0.1,), (0.7,), match_iou=round(0.5 + 0.05 * i, 2)).level for i in range(10)]
    assert found == list(range(10))


def test_masks_are_judged_where_there_are_some() -> None:
    ask = {judge: Question((0.1,), (0.7,), judge=judge) for judge in ("auto", "boxes", "masks")}
    assert [ask[judge].masks("segment") for judge in ask] == [True, False, True]
    assert [ask[judge].masks("detect") for judge in ("auto", "boxes")] == [False, False]
    with pytest.raises(ArgumentError, match="judge=masks"):
        ask["masks"].masks("detect")


def test_a_trial_looks_at_every_twentieth_between_its_bounds_and_at_both() -> None:
    assert overlaps(0.3, 0.45) == [0.3, 0.35, 0.4, 0.45]
    assert overlaps(0.3, 0.42) == [0.3, 0.35, 0.4, 0.42]
    assert overlaps(0.6, 0.6) == [0.6]
    assert nearest([0.3, 0.65, 0.8]) == 0.65
