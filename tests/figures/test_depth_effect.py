import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.depth_effect import ConfigurationEffect, depth_effect
from mlflow_yolo.figures.encode import png_bytes

BASELINE = ConfigurationEffect("0", [0.5, 0.7], 0.6, 0.4, 0.8)
FROZEN = ConfigurationEffect("10", [0.4, 0.5], 0.45, 0.3, 0.6, -0.15, -0.2, -0.1, verdict="worse over images")


def lines(figure: Figure, axes: int) -> dict:
    return {line.get_gid(): line for line in figure.axes[axes].lines}


def test_seeds_mean_interval_and_baseline_stand_left() -> None:
    left = lines(depth_effect([BASELINE, FROZEN], metric="mAP50-95", split="test"), 0)
    np.testing.assert_allclose(left["seeds:10"].get_xdata(), [0.4, 0.5])
    np.testing.assert_allclose(left["mean:10"].get_xydata(), [[0.45, 1]])
    np.testing.assert_allclose(left["interval:10"].get_xdata(), [0.3, 0.6])
    assert list(left["baseline"].get_xdata()) == [0.6, 0.6]


def test_difference_interval_and_verdict_stand_right_and_the_baseline_has_none() -> None:
    figure = depth_effect([BASELINE, FROZEN], metric="mAP50-95", split="test", n_images=128)
    right = lines(figure, 1)
    np.testing.assert_allclose(right["difference:10"].get_xydata(), [[-0.15, 1]])
    np.testing.assert_allclose(right["difference interval:10"].get_xdata(), [-0.2, -0.1])
    assert "difference:0" not in right
    texts = {text.get_gid(): text.get_text() for text in figure.axes[1].texts}
    assert texts == {"verdict:0": "baseline", "verdict:10": "\N{MINUS SIGN}0.150  worse over images"}
    assert "128 test images" in " ".join(figure.get_supxlabel().split())


def test_rows_follow_the_order_given_and_name_n() -> None:
    figure = depth_effect([BASELINE, FROZEN], metric="m", split="test")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0  (n=2)", "10  (n=2)"]
    low, high = sorted(figure.axes[1].get_xlim())
    assert low < -0.2
    assert high > 0


def test_one_seed_has_no_interval_and_unknown_numbers_are_left_out() -> None:
    lone = ConfigurationEffect("3", [0.5, np.nan], 0.5)
    empty = ConfigurationEffect("6", [], float("nan"))
    figure = depth_effect([BASELINE, lone, empty], metric="m", split="test")
    left, right = lines(figure, 0), lines(figure, 1)
    assert "interval:3" not in left
    assert "mean:6" not in left
    assert set(right) == {"zero"}
    assert png_bytes(figure, dpi=40)


@pytest.mark.parametrize("effects", [[], [ConfigurationEffect("0", [0.5], 0.5)]])
def test_none_and_the_baseline_alone_are_drawn(effects: list[ConfigurationEffect]) -> None:
    assert png_bytes(depth_effect(effects, metric="m", split="test"), dpi=40)


def test_long_verdicts_stay_inside_the_figure() -> None:
    long = ConfigurationEffect("3", [0.5], 0.5, difference=0.1, verdict="no difference shown over seeds or images " * 2)
    figure = depth_effect([BASELINE, long], metric="m", split="test")
    figure.canvas.draw()
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.axes[1].texts)


def test_scores_of_two_dimensions_are_refused() -> None:
    with pytest.raises(ShapeError, match="'0'"):
        depth_effect([ConfigurationEffect("0", [[0.5]], 0.5)], metric="m", split="test")
