import numpy as np
import pytest

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.encode import png_bytes
from mlflow_yolo.figures.precision_recall import precision_recall


def test_the_line_runs_over_101_recalls_and_the_legend_holds_its_mean() -> None:
    falling = 1 - np.linspace(0, 1, 101)
    figure = precision_recall({"0": [falling, falling]}, split="test")
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), np.arange(101) / 100)
    np.testing.assert_allclose(line.get_ydata(), falling)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "0 (P=0.500, n=2)"


def test_the_title_names_split_and_subject() -> None:
    title = precision_recall({}, split="test", subject="class 7, IoU 0.75").get_suptitle()
    assert "test" in title
    assert "class 7, IoU 0.75" in title


@pytest.mark.parametrize("curve", [np.full((1, 101), np.nan), np.empty((0, 101))])
def test_a_configuration_without_values_is_said_to_have_none(curve: np.ndarray) -> None:
    figure = precision_recall({"0": curve}, split="test")
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "0 (no value, n=0)"
    assert png_bytes(figure, dpi=40)


def test_another_number_of_recalls_is_refused() -> None:
    with pytest.raises(ShapeError, match="100"):
        precision_recall({"0": np.zeros((1, 100))}, split="test")
