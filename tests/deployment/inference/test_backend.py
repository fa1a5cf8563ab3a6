import pickle

import pytest

from mlflow_yolo.deployment.inference.backend import Busy, Options
from mlflow_yolo.exceptions import ArgumentError
from mlflow_yolo.runtime.selection import Selection

POINT = {"conf": 0.4, "iou": 0.6, "max_det": 20, "per_class": {"red": 0.9}}


def test_options_without_values_are_the_operating_point() -> None:
    assert Options().selection(POINT) == Selection(conf=0.4, iou=0.6, max_det=20, per_class={"red": 0.9})


def test_options_without_values_and_point_are_what_predict_uses() -> None:
    assert Options().selection({}) == Selection(conf=0.25, iou=0.7, max_det=300)


def test_a_given_score_holds_for_all_classes() -> None:
    assert Options(conf=0.1).selection(POINT) == Selection(conf=0.1, iou=0.6, max_det=20, per_class=None)


def test_another_given_value_leaves_the_scores_of_the_classes() -> None:
    wanted = Selection(conf=0.4, iou=0.3, max_det=5, per_class={"red": 0.9})
    assert Options(iou=0.3, max_det=5).selection(POINT) == wanted


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"conf": 1.5}, "conf=1.5"),
        ({"conf": float("nan")}, "conf=nan"),
        ({"iou": -0.1}, "iou=-0.1"),
        ({"max_det": 0}, "max_det=0"),
        ({"max_det": 2.5}, "max_det=2.5"),
        ({"max_det": float("nan")}, "max_det=nan"),
        ({"max_det": float("inf")}, "max_det=inf"),
    ],
)
def test_a_value_out_of_its_range_is_named(values: dict[str, float], named: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{named} "):
        Options(**values)  # type: ignore[arg-type]


def test_busy_travels_between_processes_with_its_time() -> None:
    error = pickle.loads(pickle.dumps(Busy("64 images wait already.", retry_after_s=7)))
    assert (str(error), error.retry_after_s) == ("64 images wait already.", 7)
