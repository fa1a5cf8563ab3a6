import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.reliability import reliability_diagram

EDGES, CONF, ACCURACY, N = [0, 0.5, 0.8, 1], [0.25, np.nan, 0.875], [0.5, np.nan, 0.75], [4, 0, 8]


def draw(**options: object) -> Figure:
    return reliability_diagram(EDGES, CONF, ACCURACY, N, split="val", error=0.167, **options)


def test_bins_are_points_at_their_mean_confidence_and_empty_ones_are_left_out() -> None:
    upper, lower = draw().axes
    (points,) = [line for line in upper.lines if line.get_gid() == "measured"]
    assert points.get_xydata().tolist() == [[0.25, 0.5], [0.875, 0.75]]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in upper.patches]
    np.testing.assert_allclose(bars, [(0, 0.5, 0.5), (0.8, 0.2, 0.75)])
    assert [bar.get_height() for bar in lower.patches] == [4, 0, 8]


def test_gaps_reach_from_the_diagonal_to_what_was_measured() -> None:
    gaps = draw().axes[0].collections[0].get_segments()
    np.testing.assert_allclose(gaps, [[[0.25, 0.25], [0.25, 0.5]], [[0.875, 0.75], [0.875, 0.875]]])


def test_intervals_are_drawn_where_they_are_given() -> None:
    figure = draw(low=[0.2, np.nan, 0.5], high=[0.8, np.nan, 0.9])
    np.testing.assert_allclose(
        figure.axes[0].collections[1].get_segments(), [[[0.25, 0.2], [0.25, 0.8]], [[0.875, 0.5], [0.875, 0.9]]]
    )
    assert "95 % interval" in figure.get_supxlabel().replace("\n", " ")
    assert "95 % interval" not in draw().get_supxlabel().replace("\n", " ")


def test_the_title_names_what_was_measured_on_what_with_its_error() -> None:
    figure = draw(what="precision", error_name="D-ECE")
    assert figure.get_suptitle().replace("\n", " ") == "Precision against confidence on val, D-ECE 0.167 (n=12)"
    assert figure.axes[0].get_ylabel() == "precision"


@pytest.mark.parametrize("edges", [[0], [0, 1]])
def test_no_predictions_are_said(edges: list[float]) -> None:
    nothing = [np.nan] * (len(edges) - 1)
    figure = reliability_diagram(edges, nothing, nothing, [0] * (len(edges) - 1), split="val", error=float("nan"))
    assert png_bytes(figure, dpi=40)
    assert "no predictions" in figure.axes[0].texts[0].get_text()
    assert "nan" not in figure.get_suptitle()


def test_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="n has 2 bins for 4 edges"):
        reliability_diagram(EDGES, CONF, ACCURACY, [1, 2], split="val", error=0)
