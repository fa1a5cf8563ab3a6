import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.accuracy_against_time import accuracy_against_time
from mlflow_yolo.figures.encode import png_bytes


def line(figure: Figure, gid: str):
    return next((found for found in figure.axes[0].lines if found.get_gid() == gid), None)


def test_children_and_their_mean_are_drawn() -> None:
    figure = accuracy_against_time({"0": [10.0, 30.0]}, {"0": [0.4, 0.6]}, metric="mAP50-95", split="test")
    np.testing.assert_allclose(line(figure, "children:0").get_xydata(), [[10, 0.4], [30, 0.6]])
    np.testing.assert_allclose(line(figure, "mean:0").get_xydata(), [[20, 0.5]])


@pytest.mark.parametrize(("seconds", "unit", "x"), [(179, "seconds", 179), (600, "minutes", 10), (9000, "hours", 2.5)])
def test_the_unit_follows_the_longest_training(seconds: float, unit: str, x: float) -> None:
    figure = accuracy_against_time({"0": [seconds]}, {"0": [0.5]}, metric="m", split="test")
    assert figure.axes[0].get_xlabel() == f"training time [{unit}]"
    np.testing.assert_allclose(line(figure, "mean:0").get_xdata(), [x])


def test_a_child_without_score_is_left_out() -> None:
    figure = accuracy_against_time({"0": [10.0, 30.0]}, {"0": [0.4, np.nan]}, metric="m", split="test")
    np.testing.assert_allclose(line(figure, "mean:0").get_xydata(), [[10, 0.4]])
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "0 (n=1)"


def test_no_children_are_drawn_without_a_mean() -> None:
    figure = accuracy_against_time({"0": []}, {"0": []}, metric="m", split="test")
    assert line(figure, "mean:0") is None
    assert png_bytes(figure, dpi=40)
    assert png_bytes(accuracy_against_time({}, {}, metric="m", split="test"), dpi=40)


def test_times_and_scores_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 times and 1 scores"):
        accuracy_against_time({"0": [1.0, 2.0]}, {"0": [0.5]}, metric="m", split="test")
    with pytest.raises(ShapeError, match="10"):
        accuracy_against_time({"0": [1.0], "10": [1.0]}, {"0": [0.5]}, metric="m", split="test")
