import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.confidence_histogram import confidence_histogram
from mlflow_yolo.figures.encode import png_bytes

EDGES = [0, 0.5, 0.9, 1.0]


def test_right_and_wrong_have_their_own_panel_and_scale() -> None:
    figure = confidence_histogram(EDGES, [1, 2, 300], [4, 0, 3], split="val")
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[1, 2, 300], [4, 0, 3]]
    np.testing.assert_allclose(
        [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches], [(0, 0.5), (0.5, 0.4), (0.9, 0.1)]
    )
    assert [axes.get_ylabel() for axes in figure.axes] == ["right", "wrong"]
    assert [axes.get_ylim()[1] for axes in figure.axes] == pytest.approx([324, 4.32])


def test_the_title_counts_confident_errors_where_an_edge_allows_it() -> None:
    figure = confidence_histogram(EDGES, [1, 2, 300], [4, 0, 3], split="val")
    assert figure.get_suptitle() == "Confidence on val: 303 right, 7 wrong, 3 of them above 0.9"
    assert "of them" not in confidence_histogram(EDGES, [1, 2, 3], [4, 0, 3], split="val", above=0.7).get_suptitle()


def test_the_threshold_is_a_line_unless_there_is_none() -> None:
    figure = confidence_histogram(EDGES, [1, 2, 3], [4, 0, 3], split="val")
    assert [line.get_xdata()[0] for axes in figure.axes for line in axes.lines] == [0.9, 0.9]
    assert not confidence_histogram(EDGES, [1, 2, 3], [4, 0, 3], split="val", above=None).axes[0].lines


def test_counts_are_whole_on_the_axis() -> None:
    figure = confidence_histogram(EDGES, [1, 0, 0], [1, 0, 0], split="val")
    assert all(float(tick).is_integer() for axes in figure.axes for tick in axes.get_yticks())


def test_a_detectors_own_words_are_used() -> None:
    figure = confidence_histogram(EDGES, [1, 0, 0], [1, 0, 0], split="val", right_name="true positives", wrong_name="x")
    assert "1 true positives, 1 x" in figure.get_suptitle()


def test_no_predictions_are_said() -> None:
    figure = confidence_histogram(EDGES, [0, 0, 0], [0, 0, 0], split="val")
    assert png_bytes(figure, dpi=40)
    assert "no predictions" in figure.axes[0].texts[0].get_text()


def test_only_right_ones_are_drawn_with_an_empty_panel_of_errors() -> None:
    assert png_bytes(confidence_histogram(EDGES, [0, 0, 5], [0, 0, 0], split="val"), dpi=40)


def test_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="wrong has 2 bins for 4 edges"):
        confidence_histogram(EDGES, [1, 2, 3], [1, 2], split="val")
