from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_yolo.exceptions import ShapeError
from mlflow_yolo.figures.class_bars import class_bars
from mlflow_yolo.figures.encode import png_bytes, rgb_array


def classes(figure: Figure) -> list[str]:
    return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


def widths(figure: Figure) -> list[float]:
    return [bar.get_width() for axes in figure.axes for bar in axes.patches]


def test_classes_run_from_the_lowest_value_to_the_highest_those_without_last() -> None:
    figure = class_bars([0.8, np.nan, 0.2, 0.5], ["a", "b", "c", "d"], split="val")
    assert classes(figure) == ["c", "d", "a", "b"]
    np.testing.assert_allclose(widths(figure), [0.2, 0.5, 0.8, np.nan])
    assert [text.get_text() for text in figure.axes[0].texts] == ["none"]
    assert figure.get_suptitle() == "Accuracy per class on val: mean 0.500"
    assert figure.axes[0].lines[0].get_xdata()[0] == pytest.approx(0.5)


def test_equal_values_keep_the_order_of_classes() -> None:
    assert classes(class_bars([0.5, 0.5, 0.5], ["b", "a", "c"], split="val")) == ["b", "a", "c"]


def test_intervals_belong_to_their_class() -> None:
    figure = class_bars([0.8, 0.2], ["a", "b"], split="val", low=[0.7, 0.1], high=[0.9, 0.4])
    segments = figure.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(segments, [[[0.1, 0], [0.4, 0]], [[0.7, 1], [0.9, 1]]])
    assert "95 % interval" in figure.get_supxlabel().replace("\n", " ")


def test_the_number_of_each_class_is_written_beside_its_name() -> None:
    figure = class_bars([0.8, 0.2], ["a", "b"], split="val", n=np.array([12, 7]), counted="objects", what="AP50-95")
    assert classes(figure) == ["b (7)", "a (12)"]
    assert "objects of the class" in figure.get_supxlabel().replace("\n", " ")
    assert figure.get_suptitle().startswith("AP50-95 per class")


def test_a_hundred_classes_stand_in_columns_and_their_names_do_not_overlap() -> None:
    names = [f"a rather long name of class {i}" for i in range(100)]
    figure = class_bars(np.arange(100) / 100, names, split="val")
    assert [len(axes.patches) for axes in figure.axes] == [34, 34, 32]
    np.testing.assert_allclose(widths(figure), np.arange(100) / 100)
    rgb_array(figure)  # lays it out
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
        assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(boxes))


def test_of_a_thousand_classes_the_lowest_are_drawn_and_the_mean_is_of_all() -> None:
    values = np.linspace(1, 0, 1000)
    figure = class_bars(values, [f"class {i}" for i in range(1000)], split="val")
    assert classes(figure)[0] == "class 999"
    assert len(classes(figure)) == 120
    assert "The 120 lowest of 1000 classes" in figure.get_supxlabel().replace("\n", " ")
    assert "mean 0.500" in figure.get_suptitle()


def test_no_classes_and_no_values_are_drawn() -> None:
    assert "no classes" in class_bars([], [], split="val").axes[0].texts[0].get_text()
    figure = class_bars([np.nan], ["<a>$"], split="val")
    assert png_bytes(figure, dpi=40)
    assert "nan" not in figure.get_suptitle()


def test_values_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ShapeError, match="values has 2 entries for 1"):
        class_bars([0.5, 0.5], ["a"], split="val")
    with pytest.raises(ShapeError, match="n has 2"):
        class_bars([0.5], ["a"], split="val", n=[1, 2])
